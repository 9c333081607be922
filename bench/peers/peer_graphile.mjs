// graphile-worker with the preset of its page on performance.
import { createReadStream, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { makeWorkerUtils, run } from "graphile-worker";
import { Logger } from "graphile-worker";

const [command, url] = process.argv.slice(2);
const seconds = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC
const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

let starts;
function started(payload) {
  if (payload?.i === undefined) return;
  starts ??= openSync(process.env.BENCH_STARTS, "a");
  writeSync(starts, `${payload.i} ${seconds().toFixed(7)} ${process.pid}\n`);
}

// https://worker.graphile.org/docs/performance
const preset = {
  worker: {
    connectionString: url,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};

async function work() {
  const runner = await run({ preset, logger, taskList: { noop: (payload) => started(payload) } });
  await runner.promise;
}

async function produce() {
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  const many = (payload, count) =>
    utils.addJobs(Array.from({ length: count }, () => ({ identifier: "noop", payload })));
  for await (const line of createInterface({ input: createReadStream(null, { fd: 0 }) })) {
    const [verb, number] = line.split(" ");
    const from = seconds();
    if (verb === "one") await utils.addJob("noop", { i: Number(number) });
    else if (verb === "submit") for (let n = 0; n < Number(number); n++) await utils.addJob("noop", {});
    else await many(verb === "tagged" ? { i: 0 } : {}, Number(number));
    console.log((verb === "one" ? from : seconds() - from).toFixed(7));
  }
  process.exit(0);
}

async function setup() {
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  await utils.migrate();
  await utils.release();
}

await { setup, producer: produce, worker: work }[command]();
