"""Breaks the engine in 31 ways, one at a time, in a copy of the tree, and runs the short form of the simulation on each.

    make sim-mutants ARGS="--worlds 500 --only fence"

A mutant that no world notices survives, and the command exits with 1.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

from bench.mutants import Mutant, run_mutated

COPIED = ("portal", "upgrades", "deployments", "sim", "templates", "manage.py")
START, WATCH, NEXT_POLL = (f"upgrades/engine/{name}.py" for name in ("start", "watch", "next_poll"))
OBSERVE = "upgrades/engine/observe.py"
FINISH = "upgrades/engine/finish.py"
STATES = "upgrades/verdicts.py"
LEASES = "portal/leases.py"
RECORD = "upgrades/commands/record.py"
STEPS = "deployments/engine/steps.py"
ERRORS = "portal/aws/errors.py"


MUTANTS = (
    Mutant(
        "drop the fence",
        LEASES,
        'return {"id": self.row.pk, "lease_epoch": self.row.lease_epoch}',
        'return {"id": self.row.pk}',
    ),
    Mutant(
        "never count up the epoch",
        LEASES,
        "lease_epoch = lease_epoch + 1",
        "lease_epoch = lease_epoch",
    ),
    Mutant(
        "claim rows that others hold",
        LEASES,
        "return free() & models.Q(next_check_at__lte=Now())",
        "return models.Q(next_check_at__lte=Now())",
    ),
    Mutant(
        "call twice",
        START,
        "    commit_baseline(lease, latest, reading, observed)\n    call_update_service(lease)\n",
        "    commit_baseline(lease, latest, reading, observed)\n    call_update_service(lease)\n"
        "    ecs.update_service(rollout.upgrade.aws_target, rollout.upgrade.cluster, rollout.service_name, task_definition=str(rollout.task_definition), force_new_deployment=True)\n",
    ),
    Mutant(
        "call before the baseline is committed",
        START,
        "    commit_baseline(lease, latest, reading, observed)\n    call_update_service(lease)\n",
        "    rollout.baseline = {'deployment_ids': [], 'service_deployment': None, 'answered_at': reading.answered_at.isoformat()}\n"
        "    for name, value in observed.items():\n        setattr(rollout, name, value)\n"
        "    call_update_service(lease)\n",
    ),
    Mutant(
        "call again without searching long enough",
        START,
        "if observations < OBSERVATIONS_BEFORE_RETRY or waited",
        "if observations < 1 and waited",
    ),
    Mutant("start over after a lost reply", START, "        if error.may_have_happened:\n", "        if False:\n"),
    Mutant(
        "take a lost reply for a refusal",
        START,
        "            return lease.release(seconds=poll_seconds(), check_error=summarize_error(error))\n        # Not executed",
        "            return finish_rollout(lease, build_refused_verdict(rollout, error))\n        # Not executed",
    ),
    Mutant("adopt the newest deployment", OBSERVE, "    started = arns[0]\n", "    started = arns[-1]\n"),
    Mutant(
        "adopt whatever task definition is new",
        OBSERVE,
        'if definitions.get(brief.target_revision or "", desired) == desired]',
        "if brief]",
    ),
    Mutant(
        "adopt a deployment of the baseline",
        OBSERVE,
        'brief.arn != rollout.baseline["service_deployment"]]',
        "brief.arn]",
    ),
    Mutant(
        "believe a single read",
        NEXT_POLL,
        "if rollout.doubted_at is not None and lease.now - rollout.doubted_at >= lag:",
        "if True:",
    ),
    Mutant(
        "end at BAKE_TIME",
        STATES,
        '    if stage == "BAKE_TIME":\n',
        '    if stage == "BAKE_TIME":\n        return Verdict(Status.SUCCESS, Outcome.COMPLETED, said)\n',
    ),
    Mutant(
        "end when all traffic has shifted",
        STATES,
        "    if stage is not None:\n        weight",
        "    if is_shifted(deployment):\n        return Verdict(Status.SUCCESS, Outcome.COMPLETED, said)\n    if stage is not None:\n        weight",
    ),
    Mutant(
        "ignore a hook",
        STATES,
        '    if deployment.status != "IN_PROGRESS":\n        return None\n',
        "    return None\n",
    ),
    Mutant(
        "call every success complete",
        STATES,
        "if configuration is None or not configuration.early_success:",
        "if True:",
    ),
    Mutant(
        "call a rollback a success",
        STATES,
        "    return Verdict(Status.FAILED, Outcome.ROLLED_BACK, reason)\n\n\ndef _describe_rollback",
        "    return Verdict(Status.SUCCESS, Outcome.COMPLETED, reason)\n\n\ndef _describe_rollback",
    ),
    Mutant(
        "blame the person who stopped too late",
        STATES,
        "if stopped_by and not _failed_by_itself(deployment):",
        "if stopped_by:",
    ),
    Mutant(
        "judge by the counts",
        STATES,
        '    if state == "IN_PROGRESS":\n        return _judge_in_progress',
        '    if state == "IN_PROGRESS" and deployment.target_running and not deployment.source_running:\n        return Verdict(Status.SUCCESS, Outcome.COMPLETED)\n    if state == "IN_PROGRESS":\n        return _judge_in_progress',
    ),
    Mutant(
        "time out while ECS has it open",
        WATCH,
        '(observed["is_overdue"] and not is_open)',
        'observed["is_overdue"]',
    ),
    Mutant(
        "forget the pause in the deadline",
        "upgrades/engine/deadline.py",
        "        deadline_at += now - waiting_since\n",
        "",
    ),
    Mutant(
        "forget the bake in the deadline",
        "upgrades/engine/deadline.py",
        "    return min(bake + steps * step + hooks, DEPLOYMENT_LIMIT)",
        "    return timedelta(0)",
    ),
    Mutant(
        "ignore a stop before the start",
        START,
        "    if upgrade.stop_requested_at:\n        return f",
        "    if False:\n        return f",
    ),
    Mutant(
        "never send the stop",
        WATCH,
        "        ecs.stop_service_deployment(rollout.upgrade.aws_target, arn, before_call=lease.renew)",
        "        lease.renew()",
    ),
    Mutant(
        "write after the end",
        WATCH,
        "    record_progress(lease, verdict, observed, is_decided=is_decided)\n\n\ndef observe_service",
        "    record_progress(lease, verdict, observed, is_decided=is_decided)\n    Rollout.objects.filter(pk=rollout.pk).update(stall_seconds=1)\n\n\ndef observe_service",
    ),
    Mutant(
        "go on after a failure",
        FINISH,
        "continues=verdict.outcome in CONTINUE_AFTER or was_never_there",
        "continues=True",
    ),
    Mutant(
        "leave the next service waiting",
        FINISH,
        "            phase=Phase.DUE, next_check_at=Now()",
        "            phase=Phase.WAITING, next_check_at=None",
    ),
    Mutant(
        "end without an audit row",
        FINISH,
        "        record(\n            AuditKind.UPGRADE_ENDED",
        "        0 and record(\n            AuditKind.UPGRADE_ENDED",
    ),
    Mutant(
        "forget the idempotency key",
        RECORD,
        '    used = f", used AS ({store})" if store else ""\n',
        '    used, key_parameters = "", []\n',
    ),
    Mutant(
        "create an agent's service without its token",
        "portal/aws/ecs_runtime.py",
        "            clientToken=token,\n",
        "",
    ),
    Mutant(
        "forget that a change was not applied",
        STEPS,
        "    except AwsUnavailable:\n        raise\n    except AwsError as error:\n        return record_refusal(lease, error)\n    mark_applied(lease, service, generation=row.generation)",
        "    except AwsError as error:\n        return record_refusal(lease, error)\n    mark_applied(lease, service, generation=row.generation)",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make sim-mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", default="", help="only mutants whose names contain one of these texts, separated by commas"
    )
    parser.add_argument("--processes", type=int, default=2, help="so many mutants at a time")
    options = parser.parse_args()
    prepare_database()
    chosen = [mutant for mutant in MUTANTS if any(text in mutant.name for text in options.only.split(","))]
    with ThreadPoolExecutor(options.processes) as pool:
        survivors = [name for name in pool.map(lambda mutant: report_mutant(mutant, options), chosen) if name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed.")
    return 1 if survivors else 0


def prepare_database() -> None:
    """Start one PostgreSQL for all, with the tables that each run copies: no mutant changes the schema."""
    from sim import parts

    parts.prepare_environment()
    import django

    django.setup()
    from sim import batches

    batches.prepare_template()


def report_mutant(mutant: Mutant, options: argparse.Namespace) -> str | None:
    """Try a mutant and print what became of it. Return its name if it survived."""
    began = time.monotonic()
    what = try_mutant(mutant, options)
    result = "SURVIVED" if what is None else "killed"
    print(f"{result:9} {mutant.name} ({time.monotonic() - began:.0f} s): {what}", flush=True)
    return mutant.name if what is None else None


def try_mutant(mutant: Mutant, options: argparse.Namespace) -> str | None:
    """Return the first invariant that the mutant breaks in the simulation, or None.

    In one process, which runs the named worlds first: most mutants break one of these.
    """
    arguments = f"--no-shrink --processes 1 --seed {options.seed} --worlds {options.worlds}".split()
    run = run_mutated([mutant], COPIED, "sim", *arguments)
    broken = [line for line in run.stdout.splitlines() if line.startswith("BROKEN")]
    if run.returncode and not broken:
        lines = (run.stdout + run.stderr).strip().splitlines()
        return f"the engine failed: {lines[-1] if lines else run.returncode}"[:200]
    return broken[0][:200] if broken else None


if __name__ == "__main__":
    raise SystemExit(main())
