// The changes that a person can make, each behind a question.
import { post, postText, problemIn } from "./api";
import { type Question, Reason, ask, reasonIn } from "./dialog";
import { plural } from "./format";
import { type Raw, layOut, parse } from "./json";
import type { Operation, Run, Status } from "./model";
import { Foreign } from "./parts";
import { go, href } from "./router";

export const CAN_CANCEL: readonly Status[] = ["pending", "leased", "waiting"];
export const CAN_REOPEN: readonly Status[] = ["failed", "cancelled"];

const Attempts = () => (
  <label class="field">
    New attempts
    <input name="attempts" type="number" min="1" max="1000" value="3" required inputMode="numeric" />
  </label>
);

type Kind = "cancel" | "reopen";
const PAST = { cancel: "cancelled", reopen: "reopened" } as const;

/** Cancel or reopen these runs one by one, after asking. */
export function askToChange(kind: Kind, runs: readonly Run[], changed: () => void): void {
  const what = runs.length === 1 ? "this run" : plural(runs.length, "run");
  ask({
    title: `${kind === "cancel" ? "Cancel" : "Reopen"} ${what}?`,
    says:
      kind === "cancel"
        ? "A pending run ends at once. One that a worker runs is told to stop, and its result is refused."
        : "It becomes due now, with new attempts beside those it has used.",
    fields: (
      <>
        {kind === "reopen" && <Attempts />}
        <Reason />
      </>
    ),
    does: kind === "cancel" ? `Cancel ${what}` : `Reopen ${what}`,
    isDangerous: kind === "cancel",
    act: async (form) => {
      const reason = reasonIn(form);
      const body = kind === "cancel" ? { reason } : { reason, attempts: Number(form.get("attempts")) };
      let done = 0;
      try {
        for (const run of runs) done += (await post(`runs/${run.id}/${kind}`, body)).changed ? 1 : 0;
      } catch (error) {
        if (runs.length === 1) throw error;
        throw new Error(`${done} of ${runs.length} ${PAST[kind]}, then: ${explained(error)}`);
      } finally {
        changed();
      }
      if (done === runs.length) return `${plural(done, "run")} ${PAST[kind]}`;
      return `${done} of ${runs.length} ${PAST[kind]}; the others had changed before`;
    },
  });
}

export interface Filter {
  pattern: string[];
  status: string[];
  created_from: string | null;
  created_before: string | null;
}

/** Count what an operation over a filter would change, then ask, then start it and show its progress. */
export async function askToOperate(kind: Kind, filter: Filter): Promise<void> {
  const can = kind === "cancel" ? CAN_CANCEL : CAN_REOPEN;
  const status = filter.status.length ? filter.status.filter((one) => (can as readonly string[]).includes(one)) : [...can];
  const narrowed = { ...filter, status };
  const dry: { matched: number; is_exact: boolean } = await post("operations", {
    kind,
    filter: narrowed,
    dry_run: true,
  });
  const many = `${dry.is_exact ? "" : "at least "}${plural(dry.matched, "run")}`;
  const question: Question = {
    title: `${kind === "cancel" ? "Cancel" : "Reopen"} all that match?`,
    says: (
      <>
        <p>
          Now that is <strong>{many}</strong>:
        </p>
        <FilterText filter={narrowed} />
        <p>It is done in small steps, each visible; the operation shows its progress and can be stopped.</p>
      </>
    ),
    fields: (
      <>
        {kind === "reopen" && <Attempts />}
        <Reason isNeeded placeholder="kept in the history of each run" />
      </>
    ),
    does: `${kind === "cancel" ? "Cancel" : "Reopen"} ${many}`,
    isDangerous: kind === "cancel",
    act: async (form) => {
      const attempts = kind === "reopen" ? { attempts: Number(form.get("attempts")) } : {};
      const asked = { kind, filter: narrowed, reason: reasonIn(form), dry_run: false, ...attempts };
      const started: Operation = await post("operations", asked);
      go(href(`operations/${started.id}`));
      return null;
    },
  };
  ask(question);
}

export function FilterText({ filter }: { filter: Partial<Filter> | null | undefined }) {
  const words = [
    filter?.pattern?.length && !filter.pattern.includes("%") ? `type ${filter.pattern.join(" or ")}` : "every type",
    filter?.status?.length ? filter.status.join(" or ") : null,
    filter?.created_from ? `created from ${filter.created_from}` : null,
    filter?.created_before ? `created before ${filter.created_before}` : null,
  ];
  return (
    <ul class="filter-text">
      {words.filter(Boolean).map((word) => (
        <li key={word}>
          <Foreign text={word!} />
        </li>
      ))}
    </ul>
  );
}

/** Submit a run like this one, its payload to be edited before. */
export function askToRunAgain(run: Run): void {
  const payload = run.payload as Raw | null | undefined;
  const text = payload ? layOut(payload.text).pieces.map((one) => one.text).join("") : "null";
  ask({
    title: "Run again",
    says: "A new run of this type, beside this one. What the payload holds is shown whole, secrets too.",
    isWide: true,
    fields: (
      <>
        <label class="field">
          Payload (JSON)
          <textarea name="payload" rows={12} spellcheck={false} defaultValue={text} />
        </label>
        <div class="field-row">
          <label class="field">
            Priority
            <input name="priority" type="number" value={run.priority} required />
          </label>
          <label class="field">
            Attempts
            <input name="max_attempts" type="number" min="1" max="1000" value={run.max_attempts} required />
          </label>
          <label class="field">
            Delay (seconds)
            <input name="delay" type="number" min="0" step="any" value="0" required />
          </label>
        </div>
      </>
    ),
    does: "Submit the new run",
    act: async (form) => {
      const edited = String(form.get("payload")).trim();
      checkJson(edited);
      const rest = JSON.stringify({
        type: run.type,
        priority: Number(form.get("priority")),
        max_attempts: Number(form.get("max_attempts")),
        delay_seconds: Number(form.get("delay")),
      });
      // Put together as text, so that the payload's numbers keep their digits.
      const answer = await postText("runs", `${rest.slice(0, -1)},"payload":${edited}}`);
      go(href(`runs/${answer.run.id}`));
      return "The new run is recorded; this is it.";
    },
  });
}

function checkJson(text: string): void {
  try {
    JSON.parse(text);
    parse(text);
  } catch (error) {
    throw new Error(`The payload is not JSON: ${(error as Error).message}`);
  }
}

/** Pause or resume a pattern, after asking for the reason. */
export function askToPause(kind: "pause" | "resume", pattern: string, changed: () => void): void {
  ask({
    title: `${kind === "pause" ? "Pause" : "Resume"} ${pattern}?`,
    says:
      kind === "pause"
        ? "Workers claim no more of its runs; those that run go on to their end. New ones are still recorded, and wait."
        : "Workers claim its runs again, those that have waited first.",
    fields: kind === "pause" ? <Reason placeholder="shown to who wonders why nothing runs" /> : <input type="hidden" name="reason" />,
    does: kind === "pause" ? "Pause" : "Resume",
    isDangerous: kind === "pause",
    act: async (form) => {
      const { changed: isChanged } = await post(`types/${encodeURIComponent(pattern)}/${kind}`, kind === "pause" ? { reason: reasonIn(form) } : {});
      changed();
      return isChanged ? `${pattern} is ${kind === "pause" ? "paused" : "resumed"}` : `${pattern} was so already`;
    },
  });
}

export const explained = (error: unknown): string => {
  const problem = problemIn(error);
  return problem.hint ? `${problem.message} ${problem.hint}` : problem.message;
};
