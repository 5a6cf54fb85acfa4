"""Chain the audit rows, and let the database refuse every change of one, TRUNCATE included.

Rows are written by INSERT alone, and the trigger `audit_link` makes the link, so no caller can. The functions run with
the rights of their owner, because the application's role may neither write the chain nor read all of it.

Chaining the existing rows takes about 60 s for a million of them. Meanwhile rows can be read, and writers wait.
"""

from typing import Any

import django.db.models.functions.comparison
from django.db import migrations, models

TEXT_AND_LINK = """
-- The text that is hashed: all columns but the hash itself, as a JSON array, so that no value can pass for another.
CREATE FUNCTION portal_audit_text(event portal_auditevent) RETURNS text
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $$
    SELECT jsonb_build_array(
        'audit/1', coalesce(event.organization_id::text, 'site'), event.position, event.previous_hash, event.id,
        event.kind, event.actor_id, event.actor_email, event.subject, event.data, event.request_id,
        host(event.client_ip), to_char(event.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
    )::text
$$;

CREATE FUNCTION portal_audit_hash(event portal_auditevent) RETURNS text
LANGUAGE sql STABLE SET search_path = {schema}, pg_temp AS $$
    SELECT encode(sha256(convert_to(portal_audit_text(event), 'UTF8')), 'hex')
$$;

-- The lock on the chain's last link lasts until the writer commits, so the order of the chain is that of the commits.
CREATE FUNCTION portal_audit_link() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
    its_chain text := coalesce(NEW.organization_id::text, 'site');
    last portal_auditchain;
BEGIN
    SELECT * INTO last FROM portal_auditchain WHERE chain = its_chain FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO portal_auditchain (chain, position, hash) VALUES (its_chain, 0, '') ON CONFLICT DO NOTHING;
        SELECT * INTO last FROM portal_auditchain WHERE chain = its_chain FOR UPDATE;
    END IF;
    NEW.position := last.position + 1;
    NEW.previous_hash := last.hash;
    NEW.hash := portal_audit_hash(NEW);
    UPDATE portal_auditchain SET position = NEW.position, hash = NEW.hash WHERE chain = its_chain;
    RETURN NEW;
END
$$;
"""

REFUSE = """
-- A row may go only once a checkpoint stands in its place, which portal_audit_prune writes.
CREATE OR REPLACE FUNCTION portal_audit_append_only() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'portal_auditevent' THEN
        PERFORM FROM portal_auditcheckpoint
            WHERE chain = coalesce(OLD.organization_id::text, 'site') AND position >= OLD.position;
        IF FOUND THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit rows are never changed or deleted';
END
$$;
"""

CHECK_AND_PRUNE = """
-- Every chain: where it begins (after its newest checkpoint), where it ends, and a row from outside of this part. One
-- statement reads both the rows and the ends, so that a row which is written meanwhile is not taken for such a row.
CREATE FUNCTION portal_audit_chains()
RETURNS TABLE (
    name text, label text, start_position bigint, start_hash text, end_position bigint, end_hash text,
    stray_position bigint, stray_id bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    WITH ends AS (
        SELECT names.name, coalesce(begun.position, 0) AS start_position, coalesce(begun.hash, '') AS start_hash,
            coalesce(ended.position, 0) AS end_position, coalesce(ended.hash, '') AS end_hash
        FROM (
            SELECT 'site' AS name UNION SELECT id::text FROM portal_organization
            UNION SELECT chain FROM portal_auditchain
        ) names
        LEFT JOIN portal_auditchain ended ON ended.chain = names.name
        LEFT JOIN LATERAL (
            SELECT position, hash FROM portal_auditcheckpoint WHERE chain = names.name ORDER BY position DESC LIMIT 1
        ) begun ON true
    )
    SELECT ends.name, coalesce(organization.slug, ends.name), ends.start_position, ends.start_hash,
        ends.end_position, ends.end_hash, coalesce(early.position, late.position), coalesce(early.id, late.id)
    FROM ends
    LEFT JOIN portal_organization organization ON organization.id::text = ends.name
    LEFT JOIN LATERAL (
        SELECT event.position, event.id FROM portal_auditevent event
        WHERE coalesce(event.organization_id::text, 'site') = ends.name AND event.position <= ends.start_position
        ORDER BY event.position LIMIT 1
    ) early ON true
    LEFT JOIN LATERAL (
        SELECT event.position, event.id FROM portal_auditevent event
        WHERE coalesce(event.organization_id::text, 'site') = ends.name AND event.position > ends.end_position
        ORDER BY event.position LIMIT 1
    ) late ON true
    ORDER BY ends.name
$$;

-- Verify the next `most` rows of a chain after the link given, and up to a position. Returns how many there were, the last one, and the first
-- that is not what it was: `altered` (its own columns), `missing` (before it) or `inserted` (it does not follow).
CREATE FUNCTION portal_audit_verify(
    chain_name text, after_position bigint, after_hash text, up_to bigint, most integer
)
RETURNS TABLE (
    rows bigint, last_position bigint, last_hash text, finding text, finding_position bigint, finding_id bigint
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
    WITH slice AS MATERIALIZED (
        SELECT event.id, event.position, event.previous_hash, event.hash, portal_audit_hash(event) AS computed
        FROM portal_auditevent event
        WHERE coalesce(event.organization_id::text, 'site') = chain_name
            AND event.position > after_position AND event.position <= up_to
        ORDER BY event.position LIMIT most
    ), linked AS (
        SELECT slice.*,
            lag(position, 1, after_position) OVER (ORDER BY position) AS before_position,
            lag(hash, 1, after_hash::varchar) OVER (ORDER BY position) AS before_hash
        FROM slice
    ), broken AS (
        SELECT position, id, CASE
            WHEN position <> before_position + 1 THEN 'missing'
            WHEN hash <> computed THEN 'altered'
            ELSE 'inserted' END AS finding, before_position
        FROM linked
        WHERE position <> before_position + 1 OR hash <> computed OR previous_hash <> before_hash
        ORDER BY position LIMIT 1
    )
    SELECT count(*), max(slice.position), (array_agg(slice.hash ORDER BY slice.position DESC))[1],
        (SELECT finding FROM broken),
        (SELECT CASE finding WHEN 'missing' THEN before_position + 1 ELSE position END FROM broken),
        (SELECT CASE finding WHEN 'missing' THEN NULL ELSE id END FROM broken)
    FROM slice
$$;

-- Delete the rows of a chain up to a position, which the caller has exported: `last_hash` and `exported_rows` must be
-- those of the file. Leaves a checkpoint. The application's role cannot call it.
CREATE FUNCTION portal_audit_prune(
    chain_name text, up_to bigint, last_hash text, exported_rows bigint, file_sha256 text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
DECLARE
    begun bigint := coalesce((SELECT max(position) FROM portal_auditcheckpoint WHERE chain = chain_name), 0);
    pruned bigint;
BEGIN
    PERFORM FROM portal_auditevent event
        WHERE coalesce(event.organization_id::text, 'site') = chain_name AND event.position = up_to
            AND event.hash = last_hash;
    IF NOT FOUND OR exported_rows <> up_to - begun OR file_sha256 !~ '^[0-9a-f]{{64}}$' THEN
        RAISE EXCEPTION 'the export does not hold the rows % to % of the chain %', begun + 1, up_to, chain_name;
    END IF;
    INSERT INTO portal_auditcheckpoint (chain, position, hash, rows, export_sha256)
        VALUES (chain_name, up_to, last_hash, exported_rows, file_sha256);
    DELETE FROM portal_auditevent event
        WHERE coalesce(event.organization_id::text, 'site') = chain_name AND event.position <= up_to;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
"""

# portal/database/roles.py gives the maintenance role this right. The triggers and checks above are for whoever asks.
REVOKE = "REVOKE ALL ON FUNCTION portal_audit_prune(text, bigint, text, bigint, text) FROM PUBLIC"

CHAIN_EXISTING = """
ALTER TABLE portal_auditevent DISABLE TRIGGER audit_append_only;
DO $$
DECLARE
    event portal_auditevent;
    last portal_auditchain;
BEGIN
    FOR event IN SELECT * FROM portal_auditevent ORDER BY organization_id, id LOOP
        IF last.chain IS DISTINCT FROM coalesce(event.organization_id::text, 'site') THEN
            IF last.chain IS NOT NULL THEN
                INSERT INTO portal_auditchain VALUES (last.*);
            END IF;
            last := ROW(coalesce(event.organization_id::text, 'site'), 0, '');
        END IF;
        event.position := last.position + 1;
        event.previous_hash := last.hash;
        event.hash := portal_audit_hash(event);
        UPDATE portal_auditevent SET position = event.position, previous_hash = event.previous_hash, hash = event.hash
            WHERE id = event.id;
        last.position := event.position;
        last.hash := event.hash;
    END LOOP;
    IF last.chain IS NOT NULL THEN
        INSERT INTO portal_auditchain VALUES (last.*);
    END IF;
END
$$;
ALTER TABLE portal_auditevent ENABLE TRIGGER audit_append_only;
"""

TRIGGERS = """
CREATE TRIGGER audit_link BEFORE INSERT ON portal_auditevent FOR EACH ROW EXECUTE FUNCTION portal_audit_link();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON portal_auditevent EXECUTE FUNCTION portal_audit_append_only();
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON portal_auditcheckpoint
    FOR EACH ROW EXECUTE FUNCTION portal_audit_append_only();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON portal_auditcheckpoint
    EXECUTE FUNCTION portal_audit_append_only();
"""

BACKWARD = """
DROP TRIGGER audit_no_truncate ON portal_auditcheckpoint;
DROP TRIGGER audit_append_only ON portal_auditcheckpoint;
DROP TRIGGER audit_no_truncate ON portal_auditevent;
DROP TRIGGER audit_link ON portal_auditevent;
DROP FUNCTION portal_audit_prune(text, bigint, text, bigint, text);
DROP FUNCTION portal_audit_verify(text, bigint, text, bigint, integer);
DROP FUNCTION portal_audit_chains();
DROP FUNCTION portal_audit_link();
DROP FUNCTION portal_audit_hash(portal_auditevent);
DROP FUNCTION portal_audit_text(portal_auditevent);
DELETE FROM portal_auditchain;
CREATE OR REPLACE FUNCTION portal_audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit rows are never changed or deleted';
END
$$;
"""


def chain(apps: Any, schema_editor: Any) -> None:
    """Create the functions for the schema that the tables are in, chain the rows, then let the triggers do it."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("LOCK TABLE portal_auditevent IN SHARE ROW EXCLUSIVE MODE")
        cursor.execute("SELECT quote_ident(current_schema())")
        (schema,) = cursor.fetchone()
        for functions in (TEXT_AND_LINK, REFUSE, CHECK_AND_PRUNE, REVOKE):
            cursor.execute(functions.format(schema=schema))
        cursor.execute(CHAIN_EXISTING)
        cursor.execute(TRIGGERS)


def unchain(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(BACKWARD)


class Migration(migrations.Migration):
    dependencies = [("portal", "0018_audit_chain")]

    operations = [
        migrations.RunPython(chain, unchain),
        migrations.AddConstraint(
            model_name="auditevent",
            constraint=models.UniqueConstraint(
                django.db.models.functions.comparison.Coalesce(
                    django.db.models.functions.comparison.Cast("organization", models.TextField()),
                    models.Value("site"),
                ),
                models.F("position"),
                name="audit_once_in_chain",
            ),
        ),
    ]
