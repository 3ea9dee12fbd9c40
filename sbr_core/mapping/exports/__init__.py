"""Results in the files of other programs, one module per program; `sbr export` writes them."""
