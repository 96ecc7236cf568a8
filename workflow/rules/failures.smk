# At the end of a failed run: a line for each job that failed for good, on SLURM or not.

import re


def failures(said):
    """What failed, why, and the log to read, in which Snakemake's own log stands for a lost one."""
    for failed in sorted(workflow.scheduler.failed, key=str):
        jobs = list(failed.jobs) if failed.is_group() else [failed]
        where = rf"^Job {failed.jobid} has been submitted with SLURM jobid .*\(log: (\S+)\)\.$"
        slurm = [Path(name) for name in re.findall(where, said.read_text(), re.MULTILINE)[-1:]]
        inside = "".join(path.read_text(errors="replace") for path in slurm if path.exists())
        # Of a group, those that Snakemake within the job names, if it came to that.
        named = [job for job in jobs if f"log: {job.log} (check" in inside]
        for job in named or jobs:
            name = [job.rule.name, *(f"{k}={v}" for k, v in job.wildcards_dict.items() if v)]
            logs = [path for path in map(Path, job.log) if path.exists() and path.stat().st_size]
            why = re.findall(r"^slurmstepd.* error: (.*)", inside, re.MULTILINE)[:1]
            sure = named or len(jobs) == 1  # of a group some may have ended well
            if not why and logs and sure:
                why = logs[0].read_text(errors="replace").splitlines()[-1:]
            yield ": ".join([f"{' '.join(name)} failed, see {[*logs, *slurm, said][0]}", *why])


onerror:
    for said in log[-1:]:  # none where Snakemake could not open its log
        for line in failures(Path(said)):
            print(line, file=sys.stderr)
