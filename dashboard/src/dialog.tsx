// Questions before a change, and what came of it.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Problem, problemIn } from "./api";
import { ProblemNote } from "./parts";

export interface Question {
  title: string;
  says?: ComponentChildren;
  fields?: ComponentChildren;
  /** The word on the button that does it. */
  does: string;
  isDangerous?: boolean;
  isWide?: boolean;
  /** Do it with the form's values; return what to tell, or null. */
  act: (form: FormData) => Promise<string | null>;
}

const question = signal<Question | null>(null);
const told = signal<string | null>(null);

export const ask = (asked: Question): void => {
  question.value = asked;
};

export function tell(text: string): void {
  told.value = text;
}

export const Reason = ({ placeholder, isNeeded }: { placeholder?: string; isNeeded?: boolean }) => (
  <label class="field">
    Reason
    <input name="reason" maxLength={1000} required={isNeeded} autoComplete="off" placeholder={placeholder ?? "optional; kept in the audit trail"} />
  </label>
);

export const reasonIn = (form: FormData): string | null => String(form.get("reason") ?? "").trim() || null;

export function Dialogs() {
  const asked = question.value;
  return asked && <Asked key={asked.title} asked={asked} />;
}

function Asked({ asked }: { asked: Question }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    const returnTo = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => returnTo?.isConnected && returnTo.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setProblem(null);
    try {
      const said = await asked.act(new FormData(event.currentTarget as HTMLFormElement));
      question.value = null;
      if (said) tell(said);
    } catch (error) {
      const found = problemIn(error);
      setProblem(found.code === "disconnected" ? { ...found, code: "unanswered" } : found);
      setBusy(false);
    }
  };

  return (
    <dialog ref={dialog} class={asked.isWide ? "wide" : undefined} aria-labelledby="asked" onClose={() => (question.value = null)}>
      <form onSubmit={(event) => void submit(event)}>
        <h2 id="asked">{asked.title}</h2>
        {asked.says && <div class="says">{asked.says}</div>}
        {asked.fields}
        {problem && <ProblemNote problem={problem} />}
        <footer>
          <button type="button" class="quiet" onClick={() => dialog.current?.close()}>
            Back
          </button>
          <button type="submit" class={asked.isDangerous ? "danger" : "primary"} aria-disabled={isBusy}>
            {asked.does}
          </button>
        </footer>
      </form>
    </dialog>
  );
}

export function Told() {
  const text = told.value;
  useEffect(() => {
    const timer = text ? setTimeout(() => (told.value = null), 6000) : undefined;
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <div class="told" role="status" aria-live="polite">
      {text && <p>{text}</p>}
    </div>
  );
}
