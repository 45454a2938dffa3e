"""People at work on a Pyramid site whose sessions are kept by pyramid_redis_sessions, for some seconds.

    pyramid_live.py PORT SECONDS

Ends with one line of JSON: how many requests there were, the sessions that were lost although they were in use, how
often somebody came back too late to count, and the keys of the sessions that were left alone from the beginning.

A session counts as lost when a request finds it gone less than its timeout after the request before it. A machine
that stands still is no loss: the gap is measured.
"""
import json
import random
import sys
import threading
import time

import redis
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

PORT, SECONDS = int(sys.argv[1]), float(sys.argv[2])
TIMEOUT = 4  # as the rule says
OWN_TIMEOUT = 60  # of those who asked to be remembered
MAX_AGE = 6  # of the short-lived cookies


def application(**more):
    settings = {
        "redis.sessions.secret": "not a secret",
        "redis.sessions.url": "redis://127.0.0.1:%d/1" % PORT,
        "redis.sessions.timeout": str(TIMEOUT),
    }
    settings.update(more)
    config = Configurator(settings=settings)
    config.include("pyramid_redis_sessions")

    def login(request):
        request.session["auth.userid"] = int(request.params["user"])
        if "remember" in request.params:
            request.session.adjust_timeout_for_session(OWN_TIMEOUT)
        return Response(request.session.session_id)

    def read(request):
        return Response(str(request.session.get("auth.userid")))

    def write(request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return Response(str(request.session.get("auth.userid")))

    for view in (login, read, write):
        config.add_route(view.__name__, "/" + view.__name__)
        config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()


websauna = {"redis.sessions.prefix": "websauna_session"}
SITE = application(**websauna)
SHORT = application(**{"redis.sessions.prefix": "short:", "redis.sessions.timeout": "31536000", "redis.sessions.cookie_max_age": str(MAX_AGE)})
server = redis.Redis(port=PORT, db=1)
end = time.monotonic() + SECONDS
told = {"requests": 0, "lost": [], "late": 0}
lock = threading.Lock()


def person(number, app, timeout, pause, query="", leak=0.0, max_age=None):
    chance = random.Random(number)
    while time.monotonic() < end:
        browser = TestApp(app)
        began = time.time()
        key = browser.get("/login?user=%d%s" % (number, query)).text
        used = time.monotonic()
        while time.monotonic() < end:
            time.sleep(chance.uniform(*pause))
            # What old clients do: the key is left without TTL.
            if chance.random() < leak:
                server.persist(key)
            if max_age and time.time() - began > max_age - 1.2:
                break  # the browser drops its cookie now: it counts in whole seconds
            asked = time.monotonic()
            answer = browser.get("/write" if chance.random() < 0.3 else "/read").text
            with lock:
                told["requests"] += 1
                if answer != str(number):
                    if asked - used < timeout - 0.2:
                        told["lost"].append("%s after %.2f s" % (key[:20], asked - used))
                    else:
                        told["late"] += 1
            if answer != str(number):
                break
            used = asked


# Sessions that nobody comes back to, without TTL.
abandoned = []
for number in range(60):
    key = TestApp(SITE).get("/login?user=%d" % number).text
    server.persist(key)
    abandoned.append(key)

people = [threading.Thread(target=person, args=(n, SITE, TIMEOUT, (0.05, 2.0))) for n in range(12)]
people += [threading.Thread(target=person, args=(n, SITE, TIMEOUT, (0.05, 2.0), "", 0.3)) for n in range(20, 32)]
people += [threading.Thread(target=person, args=(n, SITE, OWN_TIMEOUT, (4.5, 6.0), "&remember=1", 0.5)) for n in range(40, 48)]
people += [threading.Thread(target=person, args=(n, SHORT, MAX_AGE, (0.1, 0.8), "", 0.2, MAX_AGE)) for n in range(60, 68)]
for one in people:
    one.start()
for one in people:
    one.join()
told["abandoned"] = abandoned
print(json.dumps(told))
