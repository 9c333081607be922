// pg-boss: one queue, batches, woken by NOTIFY.
import { createReadStream, openSync, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { PgBoss } from "pg-boss";

const [command, url] = process.argv.slice(2);
const seconds = () => Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC
const QUEUE = "bench";

let starts;
function started(payload) {
  if (payload?.i === undefined) return;
  starts ??= openSync(process.env.BENCH_STARTS, "a");
  writeSync(starts, `${payload.i} ${seconds().toFixed(7)} ${process.pid}\n`);
}

async function open(options) {
  const boss = new PgBoss({ connectionString: url, ...options });
  boss.on("error", (error) => console.error(error.message));
  await boss.start();
  return boss;
}

// https://pgboss.io/api/workers: batchSize, localConcurrency, burstWhenBatchFull; a queue with
// notify and an instance with useListenNotify are woken at once.
async function work() {
  const boss = await open({ useListenNotify: true });
  process.on("SIGTERM", async () => {
    await boss.stop({ graceful: true, timeout: 5000 });
    process.exit(0);
  });
  const options = { batchSize: 500, localConcurrency: 2, burstWhenBatchFull: true };
  await boss.work(QUEUE, options, async (jobs) => {
    for (const job of jobs) started(job.data);
  });
}

async function produce() {
  const boss = await open({ supervise: false, schedule: false });
  for await (const line of createInterface({ input: createReadStream(null, { fd: 0 }) })) {
    const [verb, number] = line.split(" ");
    const count = Number(number);
    const from = seconds();
    if (verb === "one") await boss.send(QUEUE, { i: count });
    else if (verb === "submit") for (let n = 0; n < count; n++) await boss.send(QUEUE, {});
    else await boss.insert(QUEUE, Array.from({ length: count }, () => ({ data: verb === "tagged" ? { i: 0 } : {} })));
    console.log((verb === "one" ? from : seconds() - from).toFixed(7));
  }
  process.exit(0);
}

async function setup() {
  const boss = await open({ supervise: false, schedule: false });
  await boss.createQueue(QUEUE, { notify: true });
  await boss.stop({ graceful: false });
  process.exit(0);
}

await { setup, producer: produce, worker: work }[command]();
