"""What all dialects share: reading bodies, sampling fields, usage, errors, and the registries of parameters."""
