"""Tasks with known answers, as data: one file each, drawn anew for every sample."""
