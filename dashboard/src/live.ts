// What moves by itself: the clock of the page, and answers that are asked for again and again while somebody looks.
import { signal } from "@preact/signals";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Problem, clockAhead, get, isLockedOut, problemIn } from "./api";

export const isVisible = signal(!document.hidden);
/** The server's time now, milliseconds; moves each second. */
export const now = signal(Date.now());

document.addEventListener("visibilitychange", () => {
  isVisible.value = !document.hidden;
});
setInterval(() => {
  if (isVisible.value) now.value = Date.now() + clockAhead.value;
}, 1000);
isVisible.subscribe(() => {
  now.value = Date.now() + clockAhead.value;
});

export interface Live<T> {
  /** The newest answer; it stays while the server is away. */
  answer: T | null;
  problem: Problem | null;
  again: () => void;
}

/** The last answer to each question, so that a page that was left is there at once when one returns. */
const remembered = new Map<string, unknown>();
const REMEMBERED_MAX = 60;
const PAUSE_SECONDS_MAX = 10;

/** Ask for `path` every `seconds` (null: once) while the page is seen; without a path nothing is asked. */
export function useLive<T>(path: string | null, seconds: number | null = 2): Live<T> {
  const [state, set] = useState<{ path: string | null; answer: T | null; problem: Problem | null }>({
    path: null,
    answer: null,
    problem: null,
  });
  const restart = useRef<() => void>(() => {});

  useEffect(() => {
    if (path === null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let abort: AbortController | null = null;
    let failures = 0;
    let isOver = false;

    const run = async () => {
      clearTimeout(timer);
      abort?.abort();
      const mine = (abort = new AbortController());
      let pause = seconds;
      try {
        const answer = (await get(path, mine.signal)) as T;
        if (isOver || mine.signal.aborted) return;
        failures = 0;
        remember(path, answer);
        set({ path, answer, problem: null });
      } catch (error) {
        if (isOver || mine.signal.aborted) return;
        const problem = problemIn(error);
        set((old) => ({ path, answer: old.path === path ? old.answer : null, problem }));
        failures++;
        pause = Math.min(PAUSE_SECONDS_MAX, Math.max(1, seconds ?? 1) * 1.5 ** failures);
        if (problem.status >= 400 && problem.status < 500) pause = PAUSE_SECONDS_MAX;
      }
      abort = null;
      if (pause !== null && isVisible.value && !isOver) timer = setTimeout(run, pause * 1000);
    };

    restart.current = run;
    const stopSeeing = isVisible.subscribe((seen) => {
      clearTimeout(timer);
      if (seen) void run();
    });
    const stopUnlocking = isLockedOut.subscribe((locked) => {
      if (!locked && failures) void run();
    });
    return () => {
      isOver = true;
      clearTimeout(timer);
      abort?.abort();
      stopSeeing();
      stopUnlocking();
    };
  }, [path, seconds]);

  const again = useCallback(() => restart.current(), []);
  if (state.path === path && path !== null) return { ...state, again };
  return { answer: path === null ? null : ((remembered.get(path) as T | undefined) ?? null), problem: null, again };
}

function remember(path: string, answer: unknown): void {
  remembered.delete(path);
  remembered.set(path, answer);
  if (remembered.size > REMEMBERED_MAX) remembered.delete(remembered.keys().next().value!);
}
