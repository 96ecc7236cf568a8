# What a run prints: the lines of the stages, errors in full, and at the end what failed.

import logging
import os
import time

from snakemake.jobs import GroupJob
from snakemake.logging import logger
from snakemake.settings.types import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

START = time.time()


def written(logs):
    """The logs that this run has written, without those that are left from an earlier run."""
    return [log for log in logs if os.path.exists(log) and os.path.getmtime(log) >= START]


class Brief(logging.Filter):
    """Drops the lines that announce jobs and, after Ctrl-C, those that call each job failed."""

    announcements = (
        LogEvent.RUN_INFO,
        LogEvent.JOB_INFO,
        LogEvent.GROUP_INFO,
        LogEvent.JOB_STARTED,
        LogEvent.JOB_FINISHED,
        LogEvent.PROGRESS,
    )
    failed = {}
    interrupted = False

    def filter(self, record):
        if workflow.dryrun:  # not known before
            return True
        event, text = getattr(record, "event", None), str(record.msg)
        if event is LogEvent.JOB_ERROR:
            self.failed[record.jobid] = [f"{record.rule_name} failed", *written(record.log)]
        elif event is LogEvent.JOB_FINISHED:  # in a later attempt
            self.failed.pop(record.job_id, None)
        if "At least one job did not complete successfully." in text:
            # The last line. Under make, make prints it.
            if self.interrupted:
                record.msg = "Stopped. Run the same command to continue."
                return "MAKELEVEL" not in os.environ
            record.msg = "\n".join(map(": ".join, self.failed.values())) or text
        elif text.startswith("Terminating processes on user request"):
            self.interrupted = True
        elif self.interrupted:
            return False
        return event not in self.announcements and not text.startswith(
            ("Select jobs to execute", "Complete log", "Elapsed time", "Using shell")
        )


def log_error(group, msg=None, aux_logs=None, **details):
    """Report the jobs of a group that failed; Snakemake reports all of them, without `msg`."""
    started = [
        job
        for job in group.jobs
        if written(job.log) and not all(os.path.exists(file) for file in job.output)
    ]
    for job in started:
        job.log_error(msg, aux_logs=aux_logs, **details)
    if not started:
        logger.error(f"Error in group {group.groupid}: {msg}")


GroupJob.log_error = log_error

if Quietness.HOST in (workflow.output_settings.quiet or ()):
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":  # .snakemake/log receives all lines
            handler.filters.insert(0, Brief())
