// One run: why it is where it is, its attempts as bars, each event, what it was given and what it gave.
import { useEffect, useRef, useState } from "preact/hooks";
import { CAN_CANCEL, CAN_REOPEN, askToChange, askToRunAgain } from "../actions";
import { get, problemIn } from "../api";
import { clock, duration, plural } from "../format";
import { JsonView, LongText } from "../jsonview";
import { now, useLive } from "../live";
import type { Run, RunEvent, Why } from "../model";
import { Ago, Answer, Copy, Empty, Foreign, Loading, Page, ProblemNote, RunLink, Shape, StatusMark } from "../parts";
import { href } from "../router";
import { mayOperate } from "../session";
import { type Attempt, attemptsIn, inWords, progressIn, spanOf } from "../timeline";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const EVENTS_MAX = 2000;

export function RunPage({ id }: { id: string }) {
  const [hasEnded, setEnded] = useState(false);
  const live = useLive<{ run: Run }>(`runs/${encodeURIComponent(id)}`, hasEnded ? 5 : 1);
  const run = live.answer?.run ?? null;
  useEffect(() => setEnded(run !== null && ENDED.has(run.status)), [run?.status]);
  const changed = live.again;

  return (
    <Page
      title={run ? run.type : "Run"}
      says={
        <span class="run-id">
          <span class="mono">{id}</span> <Copy text={id} what="the run's id" />
        </span>
      }
      aside={
        run &&
        mayOperate.value && (
          <div class="actions">
            {CAN_CANCEL.includes(run.status) && (
              <button type="button" class="danger" data-hotkey="c" onClick={() => askToChange("cancel", [run], changed)}>
                Cancel…
              </button>
            )}
            {CAN_REOPEN.includes(run.status) && (
              <button type="button" class="primary" data-hotkey="r" onClick={() => askToChange("reopen", [run], changed)}>
                Reopen…
              </button>
            )}
            {!run.hidden?.includes("payload") && (
              <button type="button" onClick={() => askToRunAgain(run)}>
                Run again…
              </button>
            )}
          </div>
        )
      }
    >
      <Answer live={live} what="this run">
        {(answer) => <Whole run={answer.run} turn={answer} />}
      </Answer>
    </Page>
  );
}

function Whole({ run, turn }: { run: Run; turn: unknown }) {
  const { events, isKnown, problem, isCut } = useEvents(run.id, turn);
  const attempts = attemptsIn(events);
  const progress = run.status === "leased" ? progressIn(events) : null;
  const isHidden = (name: string) => run.hidden?.includes(name);
  return (
    <div class="run">
      <div class="run-state">
        <StatusMark status={run.status} />
        <span>{stateInWords(run)}</span>
      </div>
      <WhyNote run={run} />
      {progress && (
        <div class="progress">
          <progress max={100} value={progress.percent ?? undefined} aria-label="progress" />
          <Foreign text={progress.text} />
        </div>
      )}

      <section aria-labelledby="attempts">
        <h2 id="attempts">
          Attempts <span class="soft">{run.attempt} of {run.max_attempts} used</span>
        </h2>
        {attempts.length ? (
          <Bars run={run} attempts={attempts} events={events} />
        ) : !run.attempt ? (
          <p class="soft">None yet.</p>
        ) : isKnown ? (
          <p class="soft">Its events are not kept.</p>
        ) : problem ? null : (
          <Loading what="its attempts" />
        )}
      </section>

      <div class="two">
        {run.last_error && (
          <section aria-labelledby="error" class="both">
            <h2 id="error">{run.status === "failed" ? "Error" : "Last error"}</h2>
            <LongText text={run.last_error} what="error" />
          </section>
        )}
        <section aria-labelledby="payload">
          <h2 id="payload">Payload</h2>
          {isHidden("payload") ? <NotYours /> : run.payload ? <JsonView of={run.payload} what="payload" /> : <p class="soft mono">null</p>}
        </section>
        <section aria-labelledby="result">
          <h2 id="result">Result</h2>
          {isHidden("result") ? (
            <NotYours />
          ) : run.result ? (
            <JsonView of={run.result} what="result" />
          ) : (
            <p class="soft">{run.status === "succeeded" ? "It returned nothing." : "None: only a run that succeeds has one."}</p>
          )}
        </section>
      </div>

      <Facts run={run} />

      <section aria-labelledby="events">
        <h2 id="events">
          Events <span class="soft">{events.length ? plural(events.length, "event") : ""}</span>
        </h2>
        {problem && <ProblemNote problem={problem} />}
        {events.length > 0 && <Events events={events} />}
        {isCut && <p class="soft">Only the first {plural(EVENTS_MAX, "event")} are shown; <code>wf run show</code> has all.</p>}
        {!isKnown && !problem && <Loading what="its events" />}
        {isKnown && !events.length && !problem && <Empty title="No events.">A policy of its type keeps none, or they have been pruned.</Empty>}
      </section>
    </div>
  );
}

const NotYours = () => <p class="soft">Not for this server’s database role to read.</p>;

function stateInWords(run: Run) {
  switch (run.status) {
    case "pending":
      return Date.parse(run.run_at) > now.value ? (
        <>
          due <Ago at={run.run_at} />
        </>
      ) : (
        <>
          due since <Ago at={run.run_at} />
        </>
      );
    case "leased":
      return (
        <>
          at <Foreign text={run.leased_by ?? "?"} />, attempt {run.attempt}; its lease ends <Ago at={run.lease_until} />
        </>
      );
    case "waiting":
      return "for something else to happen";
    default:
      return (
        <>
          <Ago at={run.finished_at} />, {duration((Date.parse(run.finished_at ?? "") - Date.parse(run.created_at)) / 1000)} after it was
          recorded
        </>
      );
  }
}

/** The one reason why it is not running, or where it runs; asked for while that can change. */
function WhyNote({ run }: { run: Run }) {
  const isOver = ENDED.has(run.status);
  const live = useLive<Why>(isOver ? null : `runs/${run.id}/why`, 3);
  if (isOver) return null;
  if (live.problem && !live.answer) return <ProblemNote problem={live.problem} />;
  if (!live.answer) return null;
  const { reason, says, remedy } = live.answer;
  return (
    <aside class={`why ${["running", "next", "due_later", "workers_busy"].includes(reason) ? "" : "needs-you"}`} aria-label="why">
      <span class="why-word">why</span>
      <div>
        <p>
          <Foreign text={says} />
        </p>
        {remedy && (
          <p class="remedy">
            <Foreign text={remedy} />
          </p>
        )}
      </div>
    </aside>
  );
}

function Bars({ run, attempts, events }: { run: Run; attempts: Attempt[]; events: RunEvent[] }) {
  const [from, to] = spanOf(run, events, now.value);
  const part = (at: number) => `${(100 * (at - from)) / (to - from)}%`;
  return (
    <ol class="bars">
      {attempts.map((one, index) => {
        const until = one.to ?? Math.max(to, one.from);
        const before = index ? (attempts[index - 1]!.to ?? one.from) : from;
        return (
          <li key={`${one.token}-${index}`}>
            <span class="bar-name">
              <Shape of={SHAPE_OF[one.outcome] ?? one.outcome} /> attempt {one.number}
            </span>
            <span class="bar-track" aria-hidden="true">
              <span class="bar-wait" style={{ left: part(before), width: `calc(${part(one.from)} - ${part(before)})` }} />
              <span
                class={`bar fill-${SHAPE_OF[one.outcome] ?? one.outcome}`}
                style={{ left: `min(${part(one.from)}, 100% - 5px)`, width: `calc(${part(until)} - ${part(one.from)})` }}
              />
            </span>
            <span class="bar-says">
              {one.outcome === "leased" ? "runs" : one.outcome}{" "}
              <span class="number">{duration((until - one.from) / 1000)}</span>
              <span class="soft">, after {duration((one.from - before) / 1000)} of waiting</span>
            </span>
          </li>
        );
      })}
      <li class="bar-axis" aria-hidden="true">
        <span />
        <span class="bar-ends">
          <span>{clock(run.created_at)}</span>
          <span>{duration((to - from) / 1000)}</span>
        </span>
        <span />
      </li>
    </ol>
  );
}

const SHAPE_OF: Record<string, string> = {
  retried: "warning",
  expired: "warning",
  released: "pending",
  suspended: "waiting",
  reopened: "pending",
  created: "pending",
  progress: "notice",
  heartbeat: "notice",
  woken: "notice",
};

function Events({ events }: { events: RunEvent[] }) {
  return (
    <ol class="events">
      {events.map((event, index) => {
        const before = events[index - 1];
        const passed = before ? (Date.parse(event.created_at) - Date.parse(before.created_at)) / 1000 : null;
        const words = inWords(event);
        return (
          <li key={event.id}>
            <Shape of={SHAPE_OF[event.event_type] ?? event.event_type} />
            <div class="event-main">
              <strong>{event.event_type}</strong> <Foreign class="event-words" text={words} />
              {event.data && (
                <details>
                  <summary>data</summary>
                  <JsonView of={event.data} what={`data of ${event.event_type}`} />
                </details>
              )}
            </div>
            <div class="event-time">
              <time dateTime={event.created_at} title={event.created_at}>
                {clock(event.created_at)}
              </time>
              <span class="soft">{passed === null ? "" : `+${duration(Math.max(0, passed))}`}</span>
            </div>
          </li>
        );
      })}
    </ol>
  );
}

function Facts({ run }: { run: Run }) {
  return (
    <section aria-labelledby="facts">
      <h2 id="facts">Facts</h2>
      <dl class="facts">
        <Fact name="type">
          <a href={href("runs", { pattern: run.type })}>{run.type}</a>
        </Fact>
        <Fact name="recorded">
          <Ago at={run.created_at} />
        </Fact>
        <Fact name="due">
          <Ago at={run.run_at} />
        </Fact>
        <Fact name="changed">
          <Ago at={run.updated_at} />
        </Fact>
        {run.finished_at && (
          <Fact name="finished">
            <Ago at={run.finished_at} />
          </Fact>
        )}
        <Fact name="priority">{run.priority}</Fact>
        {run.idempotency_key !== null && (
          <Fact name="idempotency key">
            <a href={href("runs", { key: run.idempotency_key })}>
              <Foreign text={run.idempotency_key} />
            </a>
          </Fact>
        )}
        {run.leased_by && (
          <Fact name="leased by">
            <a href={href("runs", { worker: run.leased_by })}>
              <Foreign text={run.leased_by} />
            </a>
          </Fact>
        )}
        {run.lease_until && (
          <Fact name="lease until">
            <Ago at={run.lease_until} />
          </Fact>
        )}
        <Fact name="fencing token">{run.fencing_token}</Fact>
        {run.parent_id && (
          <Fact name="started by">
            <RunLink id={run.parent_id} />
          </Fact>
        )}
        {run.deleted_at && (
          <Fact name="hidden">
            <Ago at={run.deleted_at} />
          </Fact>
        )}
      </dl>
    </section>
  );
}

const Fact = ({ name, children }: { name: string; children: preact.ComponentChildren }) => (
  <div>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
);

/** The events so far: each turn only those that are new are asked for. */
function useEvents(id: string, turn: unknown) {
  const [events, setEvents] = useState<RunEvent[] | null>(null);
  const [problem, setProblem] = useState<ReturnType<typeof problemIn> | null>(null);
  const known = useRef<{ id: string; events: RunEvent[]; isBusy: boolean }>({ id, events: [], isBusy: false });
  useEffect(() => {
    if (known.current.id !== id) {
      known.current = { id, events: [], isBusy: false };
      setEvents(null);
    }
    const mine = known.current;
    if (mine.isBusy || mine.events.length >= EVENTS_MAX) return;
    mine.isBusy = true;
    const learn = async () => {
      for (;;) {
        const last = mine.events[mine.events.length - 1]?.id;
        const after = last === undefined ? "" : `&after=${last}`;
        const answer: { events: RunEvent[]; next_after: unknown } = await get(`runs/${id}/events?limit=200${after}`);
        if (answer.events.length) mine.events = [...mine.events, ...answer.events];
        if (known.current !== mine) return;
        setEvents(mine.events);
        if (answer.next_after == null || !answer.events.length || mine.events.length >= EVENTS_MAX) break;
      }
      setProblem(null);
    };
    learn()
      .catch((error: unknown) => setProblem(problemIn(error)))
      .finally(() => (mine.isBusy = false));
  }, [id, turn]);
  return { events: events ?? [], isKnown: events !== null, problem, isCut: (events ?? []).length >= EVENTS_MAX };
}
