"""Flask: synchronous views enqueue and wait, the worker is a process of its own.

    pip install 'streamq[embedded]' flask
    flask --app examples/flask_app.py run --port 8000       # one terminal
    streamq worker examples/flask_app.py                    # another one
    curl -X POST localhost:8000/invoices/42
    curl 'localhost:8000/jobs/<the id of the answer>?wait=5'

STREAMQ_URL names the Redis of both. Without it whoever starts first brings a server along, in a folder where the
other one finds it.
"""

from __future__ import annotations

import os

from flask import Flask, abort, jsonify, request
from flask.typing import ResponseReturnValue

from streamq import Job, JobError, JobNotFound, ResultExpired, ResultTimeout, StreamQ

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded:///tmp/streamq-invoices"), namespace="invoices")
app = Flask(__name__)


@queue.task(name="invoices.send", max_retries=5, autoretry_for=(ConnectionError,), retry_backoff=True)
def send_invoice(number: int) -> str:  # a plain function runs in a thread of the worker
    if number <= 0:
        raise ValueError(f"there is no invoice {number}")
    return f"invoice {number} is on its way"


@app.post("/invoices/<int(signed=True):number>")
def order_invoice(number: int) -> ResponseReturnValue:
    # From threads and without an event loop: enqueue_sync, and using(...) for options.
    job = send_invoice.using(idempotency_key=f"invoice-{number}").enqueue_sync(number)
    return jsonify(job_id=job.id, known_before=job.deduplicated), 202


@app.get("/jobs/<job_id>")
def show_job(job_id: str) -> ResponseReturnValue:
    """The result; 202 if it is not there after `wait` seconds."""
    job: Job[str] = queue.job(job_id)
    wait = min(request.args.get("wait", default=0.1, type=float), 30.0)
    try:
        return jsonify(result=job.result_sync(timeout=wait))
    except ResultTimeout:
        return jsonify(status="under way"), 202
    except (JobNotFound, ResultExpired):
        abort(404)
    except JobError as error:
        return jsonify(error=str(error).partition("\n")[0]), 200
