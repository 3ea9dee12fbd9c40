"""What stages hand on to each other: names of files, rows of tables, receipts, networks."""
