"""Commands without a rule: what users run by hand, before a run or after it."""
