"""Float64 NumPy oracle of the diffusion mathematics, in the notation of the papers.

Written with ᾱ and β of Ho et al. 2020 and Song et al. 2021 rather than with
log-SNRs, and with plain loops, so that it shares no formula with the package
beyond the definitions.
"""

from __future__ import annotations

import numpy as np


def cosine_logsnr(t, logsnr_min=-20.0, logsnr_max=20.0):
    """−2 ln tan(a t + b), the textbook way (float64 has the digits for it)."""
    b = np.arctan(np.exp(-0.5 * logsnr_max))
    a = np.arctan(np.exp(-0.5 * logsnr_min)) - b
    return -2.0 * np.log(np.tan(a * np.asarray(t, np.float64) + b))


def linear_beta_logsnr(t, beta_min=0.1, beta_max=20.0, n=200_000):
    """Log-SNR of discrete DDPM with n steps: ᾱ is the product of 1 − β_i."""
    steps = int(round(float(t) * n))
    beta = (beta_min + (beta_max - beta_min) * (np.arange(1, steps + 1) / n)) / n
    alpha_bar = np.exp(np.sum(np.log1p(-beta)))
    return np.log(alpha_bar / (1.0 - alpha_bar))


def alpha_sigma(logsnr):
    alpha_bar = 1.0 / (1.0 + np.exp(-np.asarray(logsnr, np.float64)))
    return np.sqrt(alpha_bar), np.sqrt(1.0 / (1.0 + np.exp(np.asarray(logsnr, np.float64))))


def gaussian_x0(z, logsnr, mean, std):
    """E[x0 | z] for data N(mean, std²)."""
    alpha, sigma = alpha_sigma(logsnr)
    return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (z - alpha * mean)


def gaussian_flow(z, logsnr_t, logsnr_s, mean, std):
    """The probability-flow ODE from t to s for data N(mean, std²).

    It keeps (z − α mean) / sqrt(α² std² + σ²), the quantile of z in its marginal.
    """
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    alpha_s, sigma_s = alpha_sigma(logsnr_s)
    quantile = (z - alpha_t * mean) / np.sqrt(alpha_t**2 * std**2 + sigma_t**2)
    return alpha_s * mean + quantile * np.sqrt(alpha_s**2 * std**2 + sigma_s**2)


def ddpm_posterior(z, x0, logsnr_t, logsnr_s):
    """Mean, β̃ and β of q(z_s | z_t, x0), Ho et al. 2020, equations 6 and 7."""
    bar_t, bar_s = alpha_sigma(logsnr_t)[0] ** 2, alpha_sigma(logsnr_s)[0] ** 2
    one_minus_bar_t, one_minus_bar_s = alpha_sigma(logsnr_t)[1] ** 2, alpha_sigma(logsnr_s)[1] ** 2
    alpha = bar_t / bar_s
    beta = 1.0 - alpha
    mean = (np.sqrt(bar_s) * beta / one_minus_bar_t * x0
            + np.sqrt(alpha) * one_minus_bar_s / one_minus_bar_t * z)
    return mean, one_minus_bar_s / one_minus_bar_t * beta, beta


def ddpm_sample(x0_of, z, logsnrs, noises, log_variance):
    """``logsnrs`` fall with the index; ``noises[i]`` belongs to step i; ``x0_of(z, logsnr)``."""
    for i in range(len(logsnrs) - 1, 0, -1):
        x0 = x0_of(z, logsnrs[i])
        mean, small, large = ddpm_posterior(z, x0, logsnrs[i], logsnrs[i - 1])
        log_var = (1.0 - log_variance) * np.log(small) + log_variance * np.log(large)
        z = mean + np.exp(0.5 * log_var) * noises[i]
    return x0


def ddim_sample(x0_of, z, logsnrs, noises, eta):
    """Song et al. 2021, equations 12 and 16."""
    for i in range(len(logsnrs) - 1, 0, -1):
        x0 = x0_of(z, logsnrs[i])
        alpha_t, sigma_t = alpha_sigma(logsnrs[i])
        alpha_s, sigma_s = alpha_sigma(logsnrs[i - 1])
        eps = (z - alpha_t * x0) / sigma_t
        std = eta * np.sqrt(sigma_s**2 / sigma_t**2) * np.sqrt(1.0 - alpha_t**2 / alpha_s**2)
        z = alpha_s * x0 + np.sqrt(sigma_s**2 - std**2) * eps + std * noises[i]
    return x0


def dpmpp_2m_sample(x0_of, z, logsnrs):
    """Lu et al. 2022, algorithm 2, with λ = ln(α / σ)."""
    lam = [np.log(np.divide(*alpha_sigma(logsnr))) for logsnr in logsnrs]
    previous = None
    for i in range(len(logsnrs) - 1, 0, -1):
        x0 = x0_of(z, logsnrs[i])
        h = lam[i - 1] - lam[i]
        if previous is None:
            d = x0
        else:
            r = (lam[i] - lam[i + 1]) / h
            d = (1.0 + 1.0 / (2.0 * r)) * x0 - 1.0 / (2.0 * r) * previous
        sigma_t = alpha_sigma(logsnrs[i])[1]
        alpha_s, sigma_s = alpha_sigma(logsnrs[i - 1])
        z = sigma_s / sigma_t * z - alpha_s * (np.exp(-h) - 1.0) * d
        previous = x0
    return x0


def heun_sample(x0_of, z, logsnrs):
    """Karras et al. 2022, algorithm 1 without churn, in their variables y = z / α and σ / α."""
    def eps_of(y, logsnr):
        alpha, sigma = alpha_sigma(logsnr)
        return (alpha * y - alpha * x0_of(alpha * y, logsnr)) / sigma

    y = z / alpha_sigma(logsnrs[-1])[0]
    for i in range(len(logsnrs) - 1, 0, -1):
        x0 = x0_of(alpha_sigma(logsnrs[i])[0] * y, logsnrs[i])
        noise, less = (np.exp(-0.5 * logsnrs[k]) for k in (i, i - 1))
        slope = eps_of(y, logsnrs[i])
        guess = y + (less - noise) * slope
        y = y + (less - noise) * 0.5 * (slope + eps_of(guess, logsnrs[i - 1]))
    return x0


def unipc_sample(x0_of, z, logsnrs, points):
    """Zhao et al. 2023, algorithms 1 and 2: polynomials by least squares, integrals by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(40)

    def step(z, start, end, known):
        known = known[-points - 1:] if end == known[-1][0] else known[-points:]
        times, values = (np.array(x) for x in zip(*known, strict=True))
        at = start + 0.5 * (end - start) * (nodes + 1)
        # Lagrange's polynomials at the nodes of the quadrature.
        basis = [np.prod([(at - b) / (a - b) for b in times if b != a], axis=0) * np.ones_like(at)
                 for a in times]
        shares = [0.5 * (end - start) * np.sum(weights * np.exp(at) * x) for x in basis]
        integral = sum(share * value for share, value in zip(shares, values, strict=True))
        return alpha_sigma(2 * end)[1] * (z / alpha_sigma(2 * start)[1] + integral)

    known, before = [], None
    for i in range(len(logsnrs) - 1, 0, -1):
        here = 0.5 * logsnrs[i]
        x0 = x0_of(z, logsnrs[i])
        known.append((here, x0))
        if before is not None:
            z = step(*before, here, known)
        before = z, here
        z = step(z, here, 0.5 * logsnrs[i - 1], known)
    return x0
