"""Django's PostgreSQL backend with a step of the scheduler before and after each commit."""
