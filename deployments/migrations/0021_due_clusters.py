"""A function by which the engine finds its work in every organization, as upgrades' migration 0022 explains."""

from django.db import migrations

DUE = """
CREATE FUNCTION deployments_due_clusters(moment timestamptz, overdue interval, most integer)
RETURNS TABLE (organization_id uuid, cluster varchar, is_overdue boolean)
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE before text := coalesce(current_setting('portal.organizations', true), '{}');
BEGIN
    PERFORM set_config('portal.organizations', '*', false);
    RETURN QUERY
    SELECT work.organization_id, work.cluster, min(work.next_check_at) < moment - overdue
    FROM deployments_deployment AS work
    WHERE (work.lease_until IS NULL OR work.lease_until < moment) AND work.next_check_at <= moment
    GROUP BY work.organization_id, work.cluster
    ORDER BY bool_and(work.has_read_slot), min(work.next_check_at) LIMIT most;
    PERFORM set_config('portal.organizations', before, false);
END $$;
DO $$ BEGIN
    EXECUTE format(
        'ALTER FUNCTION deployments_due_clusters(timestamptz, interval, integer) SET search_path = %I, pg_temp',
        current_schema()
    );
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0020_request_id")]

    operations = [migrations.RunSQL(DUE, "DROP FUNCTION deployments_due_clusters(timestamptz, interval, integer)")]
