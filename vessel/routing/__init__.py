"""Pure policy: which model a request goes to, and what happens after each outcome."""
