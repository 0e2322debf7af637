// BullMQ: its worker, and the verbs of `benchmarks/drive.py` with the same answers. `bullmq.py` has the rest.
//
// Reads BENCH_URL, BENCH_MARKS, BENCH_JOBS, BENCH_RATE (`load`) and BENCH_CONCURRENCY (`worker`). A mark is a double:
// seconds of hrtime, which is CLOCK_MONOTONIC as Python's time.perf_counter() is. Node has no mmap: a mark is a write.

import { openSync, readSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, QueueEvents, Worker } from "bullmq";

const PATIENCE = 300; // seconds for all jobs to end
const START_UP = 60; // seconds for the first job
const SAMPLING = 60; // seconds for one-at-a-time samples
const POLL = 2; // ms
const GAP = 5; // ms between two samples
const ABREAST = 100; // adds under way
const DUE_FROM = 3, DUE_OVER = 5; // seconds, `delayed`
const CHUNK = 100, CALLS = 4; // jobs a bulk call, which is one transaction, and calls under way

const SLOT = 8; // bytes
const NAME = "bench";
const options = { connection: { url: process.env.BENCH_URL } };
const jobs = Number(process.env.BENCH_JOBS);

const clock = () => Number(process.hrtime.bigint()) / 1e9;

// ---- marks ----------------------------------------------------------------------------------------------------------

const file = openSync(process.env.BENCH_MARKS, "r+");
const slot = Buffer.alloc(SLOT); // one will do: nothing is awaited while it is used

function setMark(i, seconds) {
  slot.writeDoubleLE(seconds);
  writeSync(file, slot, 0, SLOT, i * SLOT);
}

function readMark(i) {
  readSync(file, slot, 0, SLOT, i * SLOT);
  return slot.readDoubleLE();
}

// ---- the worker -----------------------------------------------------------------------------------------------------

const TASKS = {
  add: async ({ i, y }) => {
    setMark(i, clock());
    return i + y;
  },
  nap: async ({ i }) => {
    setMark(i, clock());
    await sleep(50);
  },
};

function work() {
  const concurrency = Number(process.env.BENCH_CONCURRENCY);
  const worker = new Worker(NAME, (job) => TASKS[job.name](job.data), { ...options, concurrency });
  worker.on("error", (error) => console.error(error));
  worker.on("failed", (job, error) => console.error(error));
  process.on("SIGTERM", async () => {
    await worker.close();
    process.exit(0);
  });
}

// ---- putting in -----------------------------------------------------------------------------------------------------

const enqueue = (queue, i, y) => queue.add("add", { i, y });

// All jobs in calls of `step`, `abreast` of them under way.
async function put(step, abreast, call) {
  let next = 0;
  const produce = async () => {
    while (next < jobs) {
      const from = next;
      next += step;
      await call(from, Math.min(step, jobs - from));
    }
  };
  await Promise.all(Array.from({ length: abreast }, produce));
}

const oneByOne = (queue) => put(1, 1, (i) => enqueue(queue, i, 1));
const abreast = (queue) => put(1, ABREAST, (i) => enqueue(queue, i, 1));
const bulk = (name, rest) => (queue) =>
  put(CHUNK, CALLS, (from, length) =>
    queue.addBulk(Array.from({ length }, (_, k) => ({ name, data: { i: from + k, ...rest } }))),
  );
const adds = bulk("add", { y: 1 });
const naps = bulk("nap", {});

const timed = (putIn) => async (queue) => {
  await enqueue(queue, 0, 0);
  const start = clock(), before = process.cpuUsage();
  await putIn(queue);
  const took = clock() - start, { user, system } = process.cpuUsage(before);
  return { per_second: jobs / took, cpu_us: (user + system) / jobs };
};

// ---- seeing them start and end --------------------------------------------------------------------------------------

async function started(i, deadline) {
  for (;;) {
    const start = readMark(i);
    if (start) return start;
    if (clock() > deadline) throw new Error(`job ${i} has not started in time`);
    await sleep(POLL);
  }
}

// Asked in one script: a job is in one of these until its result is stored.
const left = (queue) => queue.getJobCountByTypes("waiting", "active", "delayed", "prioritized", "waiting-children");

async function finished(queue, deadline) {
  for (;;) {
    const count = await left(queue);
    if (!count) return clock();
    if (clock() > deadline) throw new Error(`${count} jobs are not acknowledged in time`);
    await sleep(POLL);
  }
}

async function watch(queue) {
  const deadline = clock() + PATIENCE;
  let first = Infinity, last = 0;
  for (let i = 0; i < jobs; i++) {
    const start = await started(i, deadline);
    first = Math.min(first, start);
    last = Math.max(last, start);
  }
  return { first, last_start: last, acknowledged: await finished(queue, deadline) };
}

async function endToEnd(queue) {
  const begun = clock();
  await abreast(queue);
  return { begun, ...(await watch(queue)) };
}

async function warm(queue) {
  const deadline = clock() + START_UP;
  await enqueue(queue, 0, 0);
  await started(0, deadline);
  await finished(queue, deadline);
  setMark(0, 0);
  return {};
}

// ---- one at a time, and in step -------------------------------------------------------------------------------------

async function sampled(sample) {
  const found = [], until = clock() + SAMPLING;
  for (let i = 0; i < jobs && clock() < until; i++) {
    found.push((await sample(i)) * 1e3);
    await sleep(GAP);
  }
  return found;
}

async function latency(queue) {
  const start_ms = await sampled(async (i) => {
    const before = clock();
    await enqueue(queue, i, 1);
    return (await started(i, before + PATIENCE)) - before;
  });
  return { start_ms };
}

async function roundTrip(queue) {
  const events = new QueueEvents(NAME, options);
  events.on("error", (error) => console.error(error));
  await events.waitUntilReady();
  const round_trip_ms = await sampled(async (i) => {
    const before = clock();
    const found = await (await enqueue(queue, i, 1)).waitUntilFinished(events);
    const took = clock() - before;
    if (found !== i + 1) throw new Error(`add(${i}, 1) gave ${found}`);
    return took;
  });
  await events.close();
  return { round_trip_ms };
}

async function delayed(queue) {
  const begun = clock(), due = [], late_ms = [];
  for (let i = 0; i < jobs; i++) {
    const now = clock();
    due.push(begun + DUE_FROM + (i * DUE_OVER) / jobs);
    if (due[i] <= now) throw new Error(`job ${i} was due before it was enqueued`);
    await queue.add("add", { i, y: 1 }, { delay: Math.round((due[i] - now) * 1e3) }); // whole ms only
  }
  for (let i = 0; i < jobs; i++) late_ms.push(((await started(i, clock() + PATIENCE)) - due[i]) * 1e3);
  return { late_ms };
}

// Open loop: a job that goes late, or starts late, counts from the time it was scheduled for.
async function load(queue) {
  const rate = Number(process.env.BENCH_RATE), begun = clock() + 0.1, start_ms = [];
  const underway = new Set();
  for (let i = 0; i < jobs; i++) {
    while (clock() < begun + i / rate) await sleep(1);
    while (underway.size >= ABREAST) await Promise.race(underway);
    const sent = enqueue(queue, i, 1).then(() => underway.delete(sent));
    underway.add(sent);
  }
  await Promise.all(underway);
  const deadline = clock() + PATIENCE;
  for (let i = 0; i < jobs; i++) start_ms.push(((await started(i, deadline)) - begun - i / rate) * 1e3);
  return { start_ms };
}

const VERBS = {
  enqueue_sequential: timed(oneByOne),
  enqueue_concurrent: timed(abreast),
  enqueue_bulk: timed(adds),
  fill: async (queue) => (await adds(queue), {}),
  naps: async (queue) => (await naps(queue), {}),
  watch,
  end_to_end: endToEnd,
  warm,
  left: async (queue) => ({ left: await left(queue) }),
  latency,
  round_trip: roundTrip,
  delayed,
  load,
};

const verb = process.argv[2];
if (verb === "worker") {
  work();
} else {
  const queue = new Queue(NAME, options);
  queue.on("error", (error) => console.error(error));
  console.log(JSON.stringify(await VERBS[verb](queue)));
  await queue.close();
}
