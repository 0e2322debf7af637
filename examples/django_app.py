"""Django in one file: a view enqueues once its transaction has committed, another one shows the result.

    pip install 'streamq[embedded]' 'django>=5'
    python examples/django_app.py runserver 8000            # one terminal
    streamq worker examples/django_app.py                   # another one
    curl -X POST localhost:8000/orders/7
    curl localhost:8000/jobs/<the id of the answer>

STREAMQ_URL names the Redis of both. Without it whoever starts first brings a server along, in a folder where the
other one finds it.
"""
# pyright: basic, reportGeneralTypeIssues=false
# Django has no types of its own.

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import transaction
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import path

from streamq import Job, JobError, JobNotFound, ResultTimeout, StreamQ

settings.configure(
    SECRET_KEY="for this example only",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()

queue = StreamQ(os.environ.get("STREAMQ_URL", "embedded:///tmp/streamq-orders"), namespace="orders")


@queue.task(name="orders.confirm")
def confirm(order: int) -> str:  # a plain function runs in a thread of the worker: the ORM may be used as ever
    return f"order {order} is confirmed"


def order(request: HttpRequest, number: int) -> JsonResponse:
    jobs: list[Job[str]] = []
    with transaction.atomic():
        # Here the order is saved. A job that were enqueued here could run before the row can be seen.
        transaction.on_commit(lambda: jobs.append(confirm.enqueue_sync(number)))
    return JsonResponse({"job_id": jobs[0].id}, status=202)


def show(request: HttpRequest, job_id: str) -> JsonResponse:
    job: Job[str] = queue.job(job_id)
    try:
        return JsonResponse({"result": job.result_sync(timeout=5)})
    except ResultTimeout:
        return JsonResponse({"status": "under way"}, status=202)
    except JobNotFound:
        raise Http404("no such job, or its result is no longer kept") from None
    except JobError as error:
        return JsonResponse({"error": str(error).partition("\n")[0]})


urlpatterns = [path("orders/<int:number>", order), path("jobs/<job_id>", show)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
