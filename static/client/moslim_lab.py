"""A client of MOSLIM Lab, in one file and without dependencies: copy it beside your script or notebook.

    from moslim_lab import Lab

    lab = Lab()                                   # the server on this machine, with the token of ./lab-data
    run = lab.start("quick", seed=2, wait=True)   # starts a run, or lets it wait for its turn
    for event in run.follow():                    # what it says, as it says it
        print(event["seq"], *event["body"])
    print(run.hit_rate(), run.matrix("verbosity"))
    for text in run.generate("How do I make tea?", "helpfulness=4,verbosity=0"):
        print(text, end="")
    study = lab.start_study("methods", base="quick", seeds=[1, 2, 3])
    print(study.wait()["groups"])

A server that restarts, or cannot be reached for a while, is waited for by what waits anyway, `follow` and `wait`, for minutes, and by what
starts something for some seconds. Everything else says so at once, as a `NoAnswer`. Needs Python 3.9 or later, and nothing else.
"""

import contextlib
import copy
import http.client
import json
import os
import ssl
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

# Seconds for which `follow` and `wait` go on asking a server that does not answer, from the first time that it did not; and the same where
# something is to be started, and nobody knows whether the first request has arrived.
PATIENCE, PATIENCE_TO_START = 300, 10
# Seconds between two tries: the first, and at most.
SOONEST, LATEST = 0.25, 10
# Seconds for an answer that a model has to compute first, where `timeout` is less.
COMPUTING = 600
# What a proxy answers in the place of a server that is away.
AWAY = (502, 503, 504)
# How a run is that has not ended.
ACTIVE = ("queued", "running")
# Events in an answer.
TOGETHER = 1000
# What event files have room for.
LARGEST = 3.4028234663852886e38


class LabError(Exception):
    """What the server refused: its status, what it says, and the fields that are at fault."""

    def __init__(self, status, message, problems=()):
        places = "".join(f"\n  {p['field']}: {p['message']}" for p in problems) if len(problems) > 1 else ""
        super().__init__(f"{message}{places}")
        self.status, self.problems = status, list(problems)


class NoAnswer(LabError):
    """The server did not answer, or not in time, or a proxy has answered in its place. Asked again later, it may."""


class Lab:
    """A running server.

    `token`: by default MOSLIM_LAB_TOKEN, else the one in the data folder. `timeout`: seconds without a byte after which a request is
    given up; None waits for ever. `ca`: file with the certificate, in PEM, of the authority that a server with a certificate of one's
    own is trusted by, or with that certificate itself; without, those that this machine trusts.
    """

    def __init__(self, url="http://127.0.0.1:7878", token=None, data=None, timeout=30, ca=None):
        self.url = url.rstrip("/")
        self.token = token or os.environ.get("MOSLIM_LAB_TOKEN") or _token_in(data)
        self.timeout = timeout
        # Whatever proxy is meant for the world, the lab is not there.
        handlers = [urllib.request.ProxyHandler({})]
        if ca is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca)))
        self._opener = urllib.request.build_opener(*handlers)

    def open(self, method, path, body=None, key=None, computes=False):
        """Sends a request; returns the open answer, which the caller closes. What two requests of one `key` start is started once.
        `computes`: whether a model has to compute before the first byte of the answer comes."""
        headers = {"Origin": self.url, **({"Idempotency-Key": key} if key else {})}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        timeout = max(self.timeout, COMPUTING) if computes and self.timeout is not None else self.timeout
        with _connected(self.url):
            return self._opener.open(request, timeout=timeout)

    def ask(self, method, path, body=None, key=None, computes=False):
        """Sends a request, as `open` does; returns what the answer's JSON says."""
        with self.open(method, path, body, key, computes) as answer, _connected(self.url):
            text = answer.read()
        return json.loads(text) if text else None

    def patiently(self, ask, patience=PATIENCE):
        """What `ask` returns. While the server does not answer, it is called again, ever more rarely, for at most `patience` seconds."""
        until, wait = None, SOONEST
        while True:
            try:
                return ask()
            except NoAnswer:
                until = time.monotonic() + patience if until is None else until
                left = until - time.monotonic()
                if left <= 0:
                    raise
                time.sleep(min(wait, left))
                wait = min(2 * wait, LATEST)

    def presets(self):
        """Configurations to start from, by name."""
        return {preset["id"]: preset["config"] for preset in self.ask("GET", "/api/v1/presets")}

    def start(self, config, wait=False, priority=0, **changes):
        """Starts a run from a configuration or the name of a preset; returns a `Run`.

        `changes` are fields by their path, with two underscores for a dot: `policy__learning_rate=1e-3`. With `wait` it waits for its
        turn where its device has no free slot.
        """
        config = copy.deepcopy(self.presets()[config] if isinstance(config, str) else config)
        for path, value in changes.items():
            *groups, field = path.split("__")
            place = config
            for group in groups:
                place = place[group]
            place[field] = value
        body = {"config": config, "queue": wait, "priority": priority}
        return Run(self, self._once("/api/v1/runs", body)["id"])

    def _once(self, path, body):
        """Starts something once, also where an answer is lost on its way and the request has to be sent again."""
        key = uuid.uuid4().hex
        return self.patiently(lambda: self.ask("POST", path, body, key), PATIENCE_TO_START)

    def run(self, id):
        """A run by its identifier."""
        run = Run(self, id)
        run.status()
        return run

    def runs(self, filter="", fields=()):
        """All runs that a filter takes (`method:moslim hit>0.6`), newest first, as the list shows them; of each only `fields`, such as
        `("id", "title", "hit")`, where some are named."""
        after = None
        while True:
            query = {"filter": filter, "fields": ",".join(fields), "after": after, "limit": 500}
            query = urllib.parse.urlencode({name: value for name, value in query.items() if value})
            page = self.ask("GET", f"/api/v1/runs?{query}")
            yield from page["rows"]
            after = page["next"]
            if not after:
                return

    def study_presets(self):
        """Studies that can be started: the question of each, by its name."""
        return {preset["id"]: preset["question"] for preset in self.ask("GET", "/api/v1/study-presets")}

    def start_study(self, preset, base="quick", seeds=(1, 2, 3), on="here"):
        """Starts a study, which trains what `preset` compares, as `base` has it, with each of `seeds`; returns a `Study`. `on`: "here", or
        "slurm" or "ray" where the server has such a cluster."""
        body = {"preset": preset, "base": base, "seeds": list(seeds), "on": on}
        return Study(self, self._once("/api/v1/studies", body)["id"])

    def study(self, id):
        """A study by its identifier."""
        study = Study(self, id)
        study.info()
        return study

    def studies(self):
        """All studies as they stand, newest first: `id`, `name`, `active`, `runs` and more of each."""
        return self.ask("GET", "/api/v1/studies")


class Run:
    """A run of a lab."""

    def __init__(self, lab, id):
        self.lab, self.id = lab, id
        self._path = f"/api/v1/runs/{id}"

    def __repr__(self):
        return f"Run({self.id!r})"

    def info(self):
        """Everything about it: status, configuration, summary."""
        return self.lab.ask("GET", self._path)

    def status(self):
        """How it stands, and what is said of that, such as `("failed", "...")`: a few bytes, whatever it has done by now."""
        for shown in (self.id, f"{self.id} is:archived"):
            # Of those whose names have this one in them.
            for row in self.lab.runs(shown, fields=("id", "status", "message")):
                if row["id"] == self.id:
                    return row["status"], row["message"]
        # Which says that there is none.
        info = self.info()
        return info["status"], info["message"]

    def events(self, after=0, limit=TOGETHER):
        """Its events after a number."""
        return self.lab.ask("GET", f"{self._path}/events?after={after}&limit={limit}")

    def follow(self, after=0, every=0.5, patience=PATIENCE):
        """Its events after a number as they come, until it is over; they are asked for every `every` seconds. Each comes once, in its order,
        also where the server goes away meanwhile and is back within `patience` seconds."""
        over = False
        while True:
            events = self.lab.patiently(lambda: self.events(after), patience)
            for event in events:
                after = event["seq"]
                yield event
            if not events and over:
                return
            if not events:
                # What it said before its end has still to be asked for.
                over = self.lab.patiently(self.status, patience)[0] not in ACTIVE
            if len(events) < TOGETHER and not over:
                time.sleep(every)

    def wait(self, every=0.5, patience=PATIENCE):
        """Waits until it is over; returns its summary. A run that did not finish is an error; a server that goes away is waited for, as in
        `follow`."""
        while True:
            status, message = self.lab.patiently(self.status, patience)
            if status == "finished":
                return self.lab.patiently(self.info, patience)["summary"]
            if status not in ACTIVE:
                raise LabError(0, f"run {self.id} is {status}: {message}")
            time.sleep(every)

    def series(self, what, from_=None, to=None):
        """The figures of one kind of event ("policy", "loss", ...), a dictionary for each; those of the events from one number to another,
        where they are given. `pandas.DataFrame(run.series("policy"))` is a table of them."""
        first = from_
        while True:
            query = {"what": what, "from": first, "to": to}
            query = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
            try:
                with self.lab.open("GET", f"{self._path}/series?{query}") as answer, _connected(self.lab.url):
                    page, following = json.loads(answer.read()), answer.headers.get("x-next")
            except LabError as error:
                # There is none of this kind in what is left.
                if error.status == 404 and first != from_:
                    return
                raise
            for row in page["rows"]:
                yield dict(zip(page["columns"], row))
            # An answer without rows is that of who is up to date.
            if following is None or not page["rows"] or (to is not None and int(following) > to):
                return
            first = int(following)

    def cancel(self):
        """Stops it at its next step."""
        return self.lab.ask("POST", f"{self._path}/cancel", {})

    def pause(self):
        """Has it keep a checkpoint at its next step, and leave its slot to others until it is resumed."""
        return self.lab.ask("POST", f"{self._path}/pause", {})

    def kill(self):
        """Ends its process at once, where it does not end by `cancel`."""
        return self.lab.ask("POST", f"{self._path}/kill", {})

    def prioritise(self, priority):
        """Gives it another priority while it waits, from -100 to 100; the highest goes first."""
        return self.lab.ask("PUT", f"{self._path}/priority", {"priority": priority})

    def checkpoint(self):
        """Has it keep a checkpoint after the step it is in."""
        return self.lab.ask("POST", f"{self._path}/checkpoint", {})

    def resume(self):
        """Goes on from its last checkpoint: at once, or when its turn comes."""
        return self.lab.ask("POST", f"{self._path}/resume", {})

    def fork(self, **changes):
        """A new run that goes on from its last checkpoint with other settings of `policy` or `evaluation`; `changes` as in `Lab.start`."""
        return self.lab.start({**self.info()["config"], "fork": self.id}, **changes)

    def delete(self):
        """Puts it into the trash."""
        return self.lab.ask("DELETE", self._path)

    def _control(self, who):
        summary = self.info()["summary"]
        if summary is None:
            raise LabError(0, f"run {self.id} is not finished")
        return summary["control"][who]

    def hit_rate(self, who="policy"):
        """Mean share of answers in the class that was asked for; `who`: "policy", or "sft" for what it began as."""
        heads = self._control(who)["heads"]
        return sum(head["hit_rate"] for head in heads) / len(heads)

    def matrix(self, objective, who="policy"):
        """Shares of answers by the class asked for (rows) and achieved (columns)."""
        for head in self._control(who)["heads"]:
            if head["objective"] == objective:
                return head["matrix"]
        raise KeyError(objective)

    def generate(self, prompt, target="", **options):
        """An answer, piece by piece as it is sampled. `target`: as in "helpfulness=4,verbosity=0"; options: `seed`, `temperature`, ...,
        and `source`, who answers: "policy", "start", "25", "50", "75" (after so many per cent of its optimisation) or "newest"."""
        body = {"prompt": prompt, "target": target, **options, "n": 1}
        with self.lab.open("POST", f"{self._path}/generate", body, computes=True) as answer, _connected(self.lab.url):
            for line in answer:
                event = json.loads(line)
                if event["kind"] == "text":
                    yield event["text"]
                elif event["kind"] == "failed":
                    raise LabError(0, event["message"])

    def score(self, pairs, target=""):
        """Class distributions, rewards and, where rules exist, true classes of (prompt, response) pairs."""
        pairs = [{"prompt": prompt, "response": response} for prompt, response in pairs]
        return self.lab.ask("POST", f"{self._path}/score", {"pairs": pairs, "target": target}, computes=True)

    def to_tensorboard(self, folder):
        """Writes its scalars as an event file of TensorBoard's into a folder of its own in `folder`, in the place of an earlier one; returns
        the file. No package is needed."""
        folder = os.path.join(folder, self.id)
        os.makedirs(folder, exist_ok=True)
        # Readers look for the name's middle; its end is free.
        path = os.path.join(folder, "events.out.tfevents.0.moslim-lab-client")
        with open(path, "wb") as file:
            first = True
            for seconds, name, step, value in self.scalars():
                if first:
                    file.write(_record(_double(1, seconds) + _bytes(3, b"brain.Event:2")))
                    first = False
                # A value has a tag and a number; an event has a time, a step, and a summary of values.
                number = _bytes(1, name.encode()) + b"\x15" + struct.pack("<f", max(-LARGEST, min(LARGEST, value)))
                file.write(_record(_double(1, seconds) + b"\x10" + _varint(step) + _bytes(5, _bytes(1, number))))
        return path

    def scalars(self):
        """Everything that it measured at a step: (seconds since 1970, name, step, value)."""
        after = 0
        while True:
            events = self.events(after)
            if not events:
                return
            after = events[-1]["seq"]
            for event in events:
                (kind, body), seconds = next(iter(event["body"].items())), event["time"] / 1000
                if kind == "loss":
                    yield seconds, f"{body['stage']}/loss", body["step"], body["loss"]
                elif kind == "policy":
                    step = body["step"]
                    for name, value in step.items():
                        if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                            yield seconds, f"policy/{name}", step["step"], value
                    for at, value in enumerate(step.get("on_target", ())):
                        if isinstance(value, (int, float)):
                            yield seconds, f"policy/on_target/{at}", step["step"], value


class Study:
    """A study of a lab: many runs that answer one question."""

    def __init__(self, lab, id):
        self.lab, self.id = lab, id
        self._path = f"/api/v1/studies/{id}"

    def __repr__(self):
        return f"Study({self.id!r})"

    def info(self):
        """How it stands: whether somebody works on it (`active`), and the status of each of its `runs`."""
        return self.lab.ask("GET", self._path)

    def runs(self):
        """Its runs, in the order of its plan. Those that have not begun are not there yet."""
        return [Run(self.lab, run["run"]) for run in self.info()["runs"]]

    def wait(self, every=2, patience=PATIENCE):
        """Waits until nobody works on it any more; returns its results. One of which runs did not finish is an error; a server that goes away
        is waited for, as in `Run.follow`."""
        while True:
            info = self.lab.patiently(self.info, patience)
            if not info["active"]:
                break
            time.sleep(every)
        left = [run for run in info["runs"] if run["status"] != "finished"]
        if left:
            why = next((f": {run['run']}: {run['message']}" for run in left if run["message"]), "")
            raise LabError(0, f"{len(left)} of {len(info['runs'])} runs of study {self.id} did not finish{why}")
        return self.lab.patiently(self.results, patience)

    def results(self):
        """What its finished runs have found: `runs`, a row for each, and `groups`, their means and intervals by setting."""
        return self.lab.ask("GET", f"{self._path}/results")

    def file(self, name):
        """A file of its results, as bytes: "results.csv", "results.json", "front.svg", "figures.svg" or "overview.svg"."""
        with self.lab.open("GET", f"{self._path}/files/{name}") as answer, _connected(self.lab.url):
            return answer.read()

    def cancel(self):
        """Stops it; its runs keep what they have."""
        return self.lab.ask("POST", f"{self._path}/cancel", {})

    def resume(self):
        """Goes on with what is left of it."""
        return self.lab.ask("POST", f"{self._path}/resume", {})


@contextlib.contextmanager
def _connected(url):
    """Whatever ends a connection, or is no answer of the server at `url`, is an error of this module's."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise _refusal(error) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            why = f"the certificate of {url} is not trusted ({reason.verify_message}); Lab(ca=FILE) trusts the authority in FILE"
            raise LabError(0, why) from None
        raise NoAnswer(0, f"{url} does not answer ({reason}); is `moslim-lab serve` running?") from None


def _refusal(error):
    """What an answer says that is no success."""
    kind = NoAnswer if error.code in AWAY else LabError
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        said = json.loads(text)
        return kind(error.code, said["detail"], said.get("problems", ()))
    except (ValueError, KeyError, TypeError):
        return kind(error.code, f"status {error.code}: {text[:200]}")


def _crc(byte):
    """CRC-32C of a byte, from 0."""
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = [_crc(byte) for byte in range(256)]


def _checksum(data):
    """CRC-32C, turned and moved, as event files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    turned = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return struct.pack("<I", (turned + 0xA282EAD8) & 0xFFFFFFFF)


def _record(data):
    """A record of an event file: its length and its data, each with its checksum behind it."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _varint(number):
    """A number as protocol buffers have it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes(field, data):
    """A field of a protocol buffer that holds bytes."""
    return bytes([field << 3 | 2]) + _varint(len(data)) + data


def _double(field, value):
    """A field of a protocol buffer that holds a number of 64 bits."""
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _token_in(data):
    folder = data or os.environ.get("MOSLIM_LAB_DATA") or "lab-data"
    try:
        with open(os.path.join(folder, "token"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
