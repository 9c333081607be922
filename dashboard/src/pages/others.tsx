// Workers, Schedules, Operations, Health: one list each.
import { FilterText } from "../actions";
import { post, problemIn } from "../api";
import { tell } from "../dialog";
import { count, exact, plural } from "../format";
import { useLive } from "../live";
import type { Finding, Operation, Schedule, WorkerInfo } from "../model";
import { Ago, Answer, type Column, Dotted, Empty, Foreign, Page, RunLink, Shape, Table } from "../parts";
import { href } from "../router";
import { mayOperate } from "../session";

// ── workers ────────────────────────────────────────────────────────────────────────────────────────

const WORKER_SHAPES = { running: "leased", stopping: "waiting", lost: "warning", stopped: "cancelled" } as const;
const WORKER_SAYS = {
  running: "it beats",
  stopping: "it takes no more, and ends what it has",
  lost: "not seen for three beats; its runs go to others when their leases end",
  stopped: "it has ended",
};
const HELD_SHOWN = 5;

export function Workers() {
  const live = useLive<{ workers: WorkerInfo[] }>("workers", 2);
  return (
    <Page title="Workers" says="The processes that claim runs: what each may run at once, what it runs now, and when it was last seen.">
      <Answer live={live} what="its workers">
        {(answer) =>
          answer.workers.length ? (
            <Table label="workers" columns={workerColumns} rows={answer.workers} keyOf={(one) => one.id} />
          ) : (
            <Empty title="No worker yet.">
              Start one: <code>wf worker module:worker</code>. Until then runs are recorded and wait.
            </Empty>
          )
        }
      </Answer>
    </Page>
  );
}

const workerColumns: Column<WorkerInfo>[] = [
  {
    name: "state",
    cell: (one) => (
      <span class={`status tone-${WORKER_SHAPES[one.state]}`} title={WORKER_SAYS[one.state]}>
        <Shape of={WORKER_SHAPES[one.state] ?? "notice"} />
        {one.state}
      </span>
    ),
  },
  {
    name: "worker",
    class: "main host",
    cell: (one) => (
      <>
        <a class="row-link" href={href("runs", { worker: one.id })} title={one.id}>
          <Foreign text={one.pid == null ? one.host : `${one.host}:${one.pid}`} />
        </a>
        <div class="soft">
          <Foreign text={[one.runtime, one.version].filter(Boolean).join(" ")} />
        </div>
      </>
    ),
  },
  {
    name: "handles",
    class: "handles",
    cell: (one) => (
      <ul class="words">
        {one.patterns.slice(0, 6).map((pattern) => (
          <li key={pattern}>
            <a href={href("runs", { pattern })}>
              <Dotted name={pattern} />
            </a>
          </li>
        ))}
        {one.patterns.length > 6 && <li class="soft">and {count(one.patterns.length - 6)} more</li>}
      </ul>
    ),
  },
  {
    name: "slots",
    isNumber: true,
    cell: (one) => (
      <span class="meter-cell">
        <span class="number">
          {count(one.held)}
          {one.concurrency != null && <span class="soft">/{count(one.concurrency)}</span>}
        </span>
        {one.concurrency ? <meter max={one.concurrency} value={Math.min(one.held, one.concurrency)} aria-label="slots taken" /> : null}
      </span>
    ),
  },
  {
    name: "runs",
    class: "holds",
    cell: (one) =>
      one.holds?.length ? (
        <ul class="words">
          {one.holds.slice(0, HELD_SHOWN).map((run) => (
            <li key={run.id}>
              <RunLink id={run.id} />{" "}
              <span class="soft">
                <Ago at={run.leased_at} />, {run.type}
              </span>
            </li>
          ))}
          {one.holds.length > HELD_SHOWN && (
            <li>
              <a href={href("runs", { worker: one.id, status: "leased" })}>and more</a>
            </li>
          )}
        </ul>
      ) : (
        <span class="soft">nothing</span>
      ),
  },
  { name: "started", isNumber: true, cell: (one) => <Ago at={one.started_at} /> },
  { name: "seen", isNumber: true, cell: (one) => <Ago at={one.stopped_at ?? one.seen_at} /> },
];

// ── schedules ──────────────────────────────────────────────────────────────────────────────────────

export function Schedules() {
  const live = useLive<{ schedules: Schedule[] }>("schedules", 5);
  return (
    <Page title="Schedules" says="Recurring intents: a cron expression, its time zone, and the type of its runs. They are only recorded: nothing carries them out yet.">
      <Answer live={live} what="its schedules">
        {(answer) =>
          answer.schedules.length ? (
            <Table label="schedules" columns={scheduleColumns} rows={answer.schedules} keyOf={(one) => one.id} />
          ) : (
            <Empty title="No schedules.">Rows of workflow_schedule stand here.</Empty>
          )
        }
      </Answer>
    </Page>
  );
}

const scheduleColumns: Column<Schedule>[] = [
  {
    name: "state",
    cell: (one) => (
      <span class={`status tone-${one.enabled ? "leased" : "waiting"}`}>
        <Shape of={one.enabled ? "leased" : "waiting"} />
        {one.enabled ? "enabled" : "off"}
      </span>
    ),
  },
  {
    name: "type",
    class: "main",
    cell: (one) => (
      <a class="row-link type" href={href("runs", { pattern: one.type })}>
        {one.type}
      </a>
    ),
  },
  {
    name: "schedule",
    cell: (one) => (
      <>
        <Foreign class="mono" text={one.schedule} /> <Foreign class="soft" text={one.timezone} />
      </>
    ),
  },
  { name: "next", isNumber: true, cell: (one) => <Ago at={one.next_run_at} /> },
  { name: "last", isNumber: true, cell: (one) => <Ago at={one.last_run_at} /> },
];

// ── operations ─────────────────────────────────────────────────────────────────────────────────────

const OPERATION_SHAPES = { running: "leased", stopped: "cancelled", finished: "succeeded", failed: "failed" } as const;

export function Operations({ id }: { id: string }) {
  return id ? <OneOperation id={id} /> : <AllOperations />;
}

function AllOperations() {
  const live = useLive<{ operations: Operation[] }>("operations", 2);
  return (
    <Page title="Operations" says="Changes of many runs at once, in small steps: how far each is, who asked, and the button that stops it.">
      <Answer live={live} what="its operations">
        {(answer) =>
          answer.operations.length ? (
            <div class="operations">
              {answer.operations.map((one) => (
                <OperationCard key={one.id} operation={one} again={live.again} />
              ))}
            </div>
          ) : (
            <Empty title="No operations yet.">
              On <a href={href("runs")}>Runs</a>, filter what you mean, then cancel or reopen all that match.
            </Empty>
          )
        }
      </Answer>
    </Page>
  );
}

function OneOperation({ id }: { id: string }) {
  const live = useLive<Operation>(`operations/${encodeURIComponent(id)}`, 1);
  return (
    <Page title="Operation" says={<a href={href("operations")}>all operations</a>}>
      <Answer live={live} what="this operation">
        {(answer) => <OperationCard operation={answer} again={live.again} />}
      </Answer>
    </Page>
  );
}

function OperationCard({ operation, again }: { operation: Operation; again: () => void }) {
  const { state, matched, done, changed } = operation;
  const isOpen = state === "running";
  const stop = () =>
    post(`operations/${operation.id}/stop`).then(
      () => again(),
      (error: unknown) => tell(problemIn(error).message),
    );
  return (
    <article class="operation" aria-label={`${operation.kind}, ${state}`}>
      <header>
        <span class={`status tone-${OPERATION_SHAPES[state]}`}>
          <Shape of={OPERATION_SHAPES[state] ?? "notice"} />
          {state}
        </span>
        <a class="row-link" href={href(`operations/${operation.id}`)}>
          {operation.kind} {matched == null ? "all that match" : `${exact(matched)} ${matched === 1 ? "run" : "runs"}`}
        </a>
        {isOpen && mayOperate.value && (
          <button type="button" class="danger small" onClick={() => void stop()}>
            Stop
          </button>
        )}
      </header>
      <progress
        max={Math.max(1, matched ?? 1)}
        value={isOpen && matched == null ? undefined : state === "finished" ? Math.max(1, matched ?? 1) : done}
        aria-label="how far it is"
      />
      <p>
        <span class="number">{exact(done)}</span> looked at{matched == null ? "" : ` of ${exact(matched)}`},{" "}
        <strong class="number">{exact(changed)}</strong> changed
      </p>
      <FilterText
        filter={{
          pattern: operation.patterns,
          status: operation.statuses,
          created_from: operation.created_from,
          created_before: operation.created_before,
        }}
      />
      {operation.error && <Foreign class="error-text" text={operation.error} />}
      <p class="soft">
        {operation.reason && (
          <>
            “<Foreign text={operation.reason} />”,{" "}
          </>
        )}
        asked by <Foreign text={operation.on_behalf_of ?? operation.requested_by} /> <Ago at={operation.requested_at} />
        {operation.ended_at && (
          <>
            , {state}
            {operation.stopped_by && (
              <>
                {" "}
                by <Foreign text={operation.stopped_by} />
              </>
            )}{" "}
            <Ago at={operation.ended_at} />
          </>
        )}
      </p>
    </article>
  );
}

// ── health ─────────────────────────────────────────────────────────────────────────────────────────

const SEVERITY_SHAPES = { error: "failed", warning: "warning", notice: "notice", ok: "succeeded" } as const;

export function Health() {
  const live = useLive<{ findings: Finding[] }>("health", 20);
  return (
    <Page
      title="Health"
      says={
        <>
          What <code>wf doctor</code> finds about the database, the schema and the runs: the fact, why it matters, the remedy.
        </>
      }
      aside={
        <button type="button" class="quiet" onClick={live.again}>
          examine again
        </button>
      }
    >
      <Answer live={live} what="its health">
        {(answer) => <Findings findings={answer.findings} />}
      </Answer>
    </Page>
  );
}

function Findings({ findings }: { findings: Finding[] }) {
  const rest = findings.filter((one) => one.severity === "ok");
  const bad = (["error", "warning", "notice"] as const).flatMap((severity) => findings.filter((one) => one.severity === severity));
  const needed = bad.filter((one) => one.severity !== "notice").length;
  return (
    <>
      <div class={`concerns ${needed ? "" : "is-well"}`} role="status">
        <Shape of={needed ? "warning" : "succeeded"} />
        {needed ? `${plural(needed, "finding")} need${needed === 1 ? "s" : ""} you.` : "Nothing needs you."}
      </div>
      <ul class="findings">
        {[...bad, ...rest].map((one, index) => (
          <li key={`${one.check}-${index}`} class={`is-${one.severity}`}>
            <span class={`status tone-${SEVERITY_SHAPES[one.severity]}`}>
              <Shape of={SEVERITY_SHAPES[one.severity]} />
              {one.severity}
            </span>
            <div>
              <p>
                <strong>{one.check}</strong> <Foreign text={one.found} />
              </p>
              {one.why && (
                <p class="soft">
                  <Foreign text={one.why} />
                </p>
              )}
              {one.remedy && (
                <p class="remedy">
                  <Foreign text={one.remedy} />
                </p>
              )}
            </div>
          </li>
        ))}
      </ul>
    </>
  );
}
