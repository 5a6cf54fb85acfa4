"""Make a revision of each deployment, in the order in which an agent's deployments were created."""

from django.db import migrations

# A revision has the id of the deployment it is made of. The digest is known where the image names it.
FORWARD = """
INSERT INTO deployments_revision (
    id, organization_id, agent_id, number, image, digest, version, cpu, memory, environment, created_by_id, created_at
)
SELECT
    id, organization_id, agent_id, row_number() OVER (PARTITION BY agent_id ORDER BY created_at, id), image,
    substring(image FROM '@(sha256:[0-9a-f]{64})$'), version, cpu, memory, environment, created_by_id, created_at
FROM deployments_deployment WHERE target_revision_id IS NULL;
UPDATE deployments_deployment SET target_revision_id = id, live_revision_id = CASE WHEN status = 'ready' THEN id END
WHERE target_revision_id IS NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0030_revisions")]

    operations = [migrations.RunSQL(FORWARD, migrations.RunSQL.noop)]
