#!/bin/sh
# Sets the passwords of the portal's roles. compose.yaml lets PostgreSQL run it once, after portal/database/roles.sql.
set -eu
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv owner OWNER_PASSWORD
\getenv app APP_PASSWORD
ALTER ROLE portal_owner PASSWORD :'owner';
ALTER ROLE portal_app PASSWORD :'app';
SQL
