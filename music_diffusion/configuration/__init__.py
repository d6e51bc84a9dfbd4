"""What a gin configuration amounts to: what is read, with which values, and where they come from."""
