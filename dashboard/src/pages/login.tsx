// The key, where the server wants one.
import { useState } from "preact/hooks";
import { type Problem, isLockedOut, post, problemIn } from "../api";
import { ProblemNote } from "../parts";
import { learnWhoIAm } from "../session";

export function Login() {
  const [problem, setProblem] = useState<Problem | null>(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setProblem(null);
    try {
      const form = new FormData(event.currentTarget as HTMLFormElement);
      await post("login", { key: String(form.get("key")).trim() });
      isLockedOut.value = false;
      await learnWhoIAm();
    } catch (error) {
      const found = problemIn(error);
      setProblem(found.code === "disconnected" ? { ...found, code: "unanswered" } : found);
    }
    setBusy(false);
  };
  return (
    <main class="login" id="main">
      <form onSubmit={(event) => void submit(event)}>
        <h1>simple-workflow</h1>
        <p class="says">This server asks for an API key. It is kept in a cookie that scripts cannot read.</p>
        <label class="field">
          API key
          <input name="key" type="password" required autoComplete="current-password" spellcheck={false} ref={(input) => input?.focus()} />
        </label>
        {problem && <ProblemNote problem={problem} />}
        <button type="submit" class="primary" aria-disabled={isBusy}>
          Log in
        </button>
        <p class="soft">
          An operator makes one: <code>wf server key add NAME --role operator</code>
        </p>
      </form>
    </main>
  );
}
