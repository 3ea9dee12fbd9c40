"""One loop; a step function per method; prediction."""
