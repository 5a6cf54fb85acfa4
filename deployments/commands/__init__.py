"""Commands that change agents and deployments. The pages and the API both call them. They enforce the role and state rules.

Each command checks the role first. One transaction then holds the guarded change, its event and its audit row. After the
commit a reconcile task is dispatched. A repeated Idempotency-Key returns the result of its first use. Without a key, a
repeated command is a no-op.
"""

from deployments.commands.agents import DEFAULT_CPU, DEFAULT_MEMORY, create_agent, update_agent
from deployments.commands.change import kill_deployment, restart_deployment, scale_deployment, stop_deployment
from deployments.commands.create import create_deployment, new_deployment
from deployments.commands.restore import restore_revision
from deployments.commands.watch import WATCH_DURATION, WATCH_WRITE_SECONDS, mark_unmarked, mark_watched

__all__ = [
    "DEFAULT_CPU",
    "DEFAULT_MEMORY",
    "WATCH_DURATION",
    "WATCH_WRITE_SECONDS",
    "create_agent",
    "create_deployment",
    "kill_deployment",
    "mark_unmarked",
    "mark_watched",
    "new_deployment",
    "restart_deployment",
    "restore_revision",
    "scale_deployment",
    "stop_deployment",
    "update_agent",
]
