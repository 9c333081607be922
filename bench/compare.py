import sys
from dataclasses import replace
import stage, systems, environments, rounds
with stage.server() as url:
    for s in systems.systems(sys.argv[1:]):
        try:
            b = rounds.Bench(s, environments.command(s), url, rounds.Effort(jobs_max=10000, drain_seconds=.5, latencies=30, submit_seconds=.3))
            b.round()
            print(s.name, b.jobs, {k: ([round(x,2) for x in v] if k!='latency' else sorted(round(x,1) for x in v)[len(v)//2]) for k,v in b.figures.items()})
        except systems.NotMeasuredError as e:
            print(s.name, "not measured:", e)
