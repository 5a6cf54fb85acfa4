"""Deployments are counted by agent and status as they change, so that no list has to count its rows."""

from django.db import migrations

# The two counters of a change are taken in one order, so that two opposite changes never wait for each other.
FORWARD = """
CREATE FUNCTION deployments_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deployments_deploymentcount (organization_id, agent_id, status, count)
    SELECT NEW.organization_id, NEW.agent_id, changed.status, changed.difference
    FROM (
        SELECT NEW.status AS status, 1 AS difference
        UNION ALL
        SELECT OLD.status, -1 WHERE TG_OP = 'UPDATE'
    ) AS changed
    ORDER BY changed.status
    ON CONFLICT (organization_id, agent_id, status)
    DO UPDATE SET count = deployments_deploymentcount.count + excluded.count;
    RETURN NULL;
END
$$;
CREATE TRIGGER deployments_count_insert AFTER INSERT ON deployments_deployment
    FOR EACH ROW EXECUTE FUNCTION deployments_count();
CREATE TRIGGER deployments_count_update AFTER UPDATE OF status ON deployments_deployment
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION deployments_count();
CREATE FUNCTION deployments_uncount() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE deployments_deploymentcount SET count = count - 1
    WHERE organization_id = OLD.organization_id AND agent_id = OLD.agent_id AND status = OLD.status;
    RETURN NULL;
END
$$;
CREATE TRIGGER deployments_count_delete AFTER DELETE ON deployments_deployment
    FOR EACH ROW EXECUTE FUNCTION deployments_uncount();
"""
BACKWARD = """
DROP TRIGGER deployments_count_insert ON deployments_deployment;
DROP TRIGGER deployments_count_update ON deployments_deployment;
DROP TRIGGER deployments_count_delete ON deployments_deployment;
DROP FUNCTION deployments_count();
DROP FUNCTION deployments_uncount();
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
