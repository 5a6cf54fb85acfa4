"""The connection to PostgreSQL: the context of organizations (row-level security), and the roles of a site."""
