"""Planning: which operations run on which tables, in which order, and why not the others. Pure: no I/O, no clock."""
