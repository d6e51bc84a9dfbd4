"""Every recipe of `evaluate` builds its table, whose columns are figures that reports have."""

import fnmatch

import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.evaluation import figures
from music_diffusion.evaluation.table import Table

ROOT = gin_setup.gin_root() / "recipes" / "evaluation"
RECIPES = sorted(p.name for p in ROOT.glob("*.gin") if p.name != "table.gin")
# Macros that a user sets, and the fields of plans in which they end up.
FOLDERS = {
    "spectrogram_diffusion.gin": {"NOTES": "notes", "REFERENCE": "reference"},
    "difftransfer.gin": {"SINGLE": "generated", "SINGLE_MIXED": "generated", "MIXTURE": "generated",
                         "REFERENCE": "reference"},
    "unconditional.gin": dict.fromkeys((
        "GTZAN_100", "GTZAN_100_LONGER", "GTZAN_10", "GTZAN_10_LONG", "GTZAN_50_1000", "GTZAN_50_500",
        "GTZAN_50_100", "CARNATIC_159", "CARNATIC_50"), "generated") | {
            "GTZAN": "reference", "CARNATIC": "reference"},
    "generator.gin": dict.fromkeys((
        "DDIM_1000", "DDIM_100", "DDIM_32", "DDIM_16", "DPM_32", "DPM_16", "DPM_8", "UNIPC_16",
        "HEUN_16", "HELD_OUT", "OTHER", "PHASES", "SPECTRUM"), "generated") | {"REFERENCE": "reference"},
    "performance.gin": {"WITH": "generated", "WITHOUT": "generated", "REFERENCE": "reference",
                        "NOTES": "notes", "GROUPS": "groups", "T5": "model", "UNET": "model",
                        "UNET_WITHOUT": "model"},
    "transfer.gin": {}, "transfer_strength.gin": {}, "restyle.gin": {},  # PAIRS has several
    "style_transfer.gin": {"RESTYLED": "generated", "STYLE": "reference", "CONTENT": "reference"},
}


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def table_of(recipe: str, bindings: list[str]) -> Table:
    gin_setup.parse([f"recipes/evaluation/{recipe}"], bindings, training=False)
    return gin.get_configurable("evaluated")()


def test_there_is_one_for_each_paper():
    assert set(RECIPES) == set(FOLDERS)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_builds_its_table(recipe):
    folders = FOLDERS[recipe]
    given = [] if folders else ["PAIRS = 'pairs'"]
    table = table_of(recipe, [f"{name} = 'where/{name}'" for name in folders] + given)
    for name, field in folders.items():
        assert any(getattr(plan, field) == f"where/{name}" for plan in table.rows.values()), name
    assert gin_setup.unused_bindings() == []
    # Rows differ in something.
    assert len(set(table.rows.values())) == len(table.rows)


@pytest.mark.parametrize("recipe", RECIPES)
def test_columns_are_figures_that_reports_have(recipe):
    known = {f"{key}:net" for key in figures.SET_LABELS} | set(figures.DISTANCES) | set(figures.NOTE_LABELS)
    known |= {"reconstruction_net", "realtime_factor", "group_fad:net", "file_fad:net"}
    known |= {"matched_distance:net"} | set(figures.TRANSFER_LABELS)
    known |= {f"{of}_top{k}:net" for of in ("group", "file", "mean", "matched") for k in (1, 3)}
    table = table_of(recipe, [f"{name} = 'x'" for name in FOLDERS[recipe] or ("PAIRS",)])
    for column in table.columns:
        assert fnmatch.filter(known, column), column


def test_the_embedding_is_a_macro():
    bindings = ["NOTES = 'n'", "REFERENCE = 'r'", "EMBEDDINGS = ('tagger',)", "MODEL = 'mine'"]
    plan, = table_of("spectrogram_diffusion.gin", bindings).rows.values()
    assert plan.embeddings == ("tagger",) and plan.model == "mine" and plan.inverter == "inverter"


def test_rows_whose_models_are_not_given_are_left_out():
    given = ["REFERENCE = 'r'", "NOTES = 'n'", "GROUPS = 'g.csv'"]
    table = table_of("performance.gin", [*given, "UNET = 'u'"])
    assert list(table.rows) == ["U-Net, without", "U-Net, with"] and len(table.left_out) == 4
    assert [(p.model, p.condition, p.performances) for p in table.rows.values()] == [
        ("u", False, 3), ("u", True, 3)]
    plain = table_of("performance.gin", [*given, "UNET = 'u'", "UNET_WITHOUT = 'p'"])
    without = plain.rows["U-Net, without"]
    assert (without.model, without.performances_of) == ("p", "u")  # drawn among those of the other
    folders = table_of("performance.gin", ["REFERENCE = 'r'", "WITH = 'w'"])  # no notes, no groups
    assert [p.generated for p in folders.rows.values()] == ["w"]
    with pytest.raises(UserError, match="nothing to fill it with"):
        table_of("performance.gin", given)
    with pytest.raises(UserError, match="no groups"):
        table_of("performance.gin", ["REFERENCE = 'r'", "NOTES = 'n'", "T5 = 't'"])
