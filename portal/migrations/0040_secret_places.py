from django.db import migrations, models

import portal.models.people

# Which other organizations exist is not for an organization's own connection to see, so the function runs as its owner.
IS_SHARED = """
CREATE FUNCTION portal_account_is_shared(own_id uuid, account text, portal_account text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT 1 FROM portal_organization
        WHERE id <> own_id
          AND (deployment_stack <> '' OR deployment_cluster <> '')
          AND (
              COALESCE(NULLIF(split_part(deployment_role_arn, ':', 5), ''), portal_account) = account
              OR account = ANY (string_to_array(replace(secret_accounts, ' ', ''), ','))
          )
    )
$$;
"""


class Migration(migrations.Migration):
    """Add which secrets an organization's agents may use. Agents keep the references that they have."""

    dependencies = [("portal", "0037_context_of_accepted")]

    operations = [
        migrations.AddField(
            "organization",
            "secret_accounts",
            models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Comma-separated ids of AWS accounts, besides the organization's own, whose secrets its agents may use.",
                max_length=300,
                validators=[portal.models.people.account_ids],
                verbose_name="accounts of secrets",
            ),
        ),
        migrations.AddField(
            "organization",
            "secret_prefix",
            models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Secrets of agents must begin with it, e.g. acme/. Needed where organizations share an AWS account.",
                max_length=200,
                validators=[portal.models.people.secret_prefix],
                verbose_name="prefix of secrets",
            ),
        ),
        migrations.RunSQL(IS_SHARED, "DROP FUNCTION portal_account_is_shared(uuid, text, text)"),
    ]
