"""Effect of a gin configuration: what is read, with which values, and where they come from."""
