"""A client of MOSLIM Lab, in one file and without dependencies: copy it beside your script or notebook.

    from moslim_lab import Lab

    lab = Lab()                                   # the server on this machine, with the token of ./lab-data
    run = lab.start("quick", seed=2, wait=True)   # starts a run, or lets it wait for its turn
    for event in run.follow():                    # what it says, as it says it
        print(event["seq"], *event["body"])
    print(run.hit_rate(), run.matrix("verbosity"))
    for text in run.generate("How do I make tea?", "helpfulness=4,verbosity=0"):
        print(text, end="")

Needs Python 3.9 or later.
"""

import copy
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid


class LabError(Exception):
    """What the server refused: its status, what it says, and the fields that are at fault."""

    def __init__(self, status, message, problems=()):
        places = "".join(f"\n  {p['field']}: {p['message']}" for p in problems) if len(problems) > 1 else ""
        super().__init__(f"{message}{places}")
        self.status, self.problems = status, list(problems)


class Lab:
    """A running server. `token`: by default MOSLIM_LAB_TOKEN, else the one in the data folder."""

    def __init__(self, url="http://127.0.0.1:7878", token=None, data=None):
        self.url = url.rstrip("/")
        self.token = token or os.environ.get("MOSLIM_LAB_TOKEN") or _token_in(data)
        # Whatever proxy is meant for the world, the lab is not there.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def open(self, method, path, body=None, key=None):
        """Sends a request; returns the open answer, which the caller closes. What two requests of one `key` start is started once."""
        headers = {"Origin": self.url, **({"Idempotency-Key": key} if key else {})}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            return self._opener.open(request)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                said = json.loads(text)
                raise LabError(error.code, said["detail"], said.get("problems", ())) from None
            except (ValueError, KeyError, TypeError):
                raise LabError(error.code, f"status {error.code}: {text[:200]}") from None
        except urllib.error.URLError as error:
            raise LabError(0, f"{self.url} does not answer ({error.reason}); is `moslim-lab serve` running?") from None

    def ask(self, method, path, body=None):
        """Sends a request; returns what the answer's JSON says."""
        with self.open(method, path, body) as answer:
            text = answer.read()
        return json.loads(text) if text else None

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
        for wait in (1, 2, None):
            try:
                with self.open("POST", path, body, key) as answer:
                    return json.loads(answer.read())
            except (LabError, OSError) as error:
                if wait is None or getattr(error, "status", 0) != 0:
                    raise
                time.sleep(wait)

    def run(self, id):
        """A run by its identifier."""
        run = Run(self, id)
        run.info()
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

    def events(self, after=0, limit=1000):
        """Its events after a number."""
        return self.lab.ask("GET", f"{self._path}/events?after={after}&limit={limit}")

    def follow(self, after=0, every=0.5):
        """Its events as they come, until it is over."""
        while True:
            # Asked before its events: what it says before its end is not missed.
            over = self.info()["status"] not in ("running", "queued")
            while True:
                events = self.events(after)
                if not events:
                    break
                yield from events
                after = events[-1]["seq"]
            if over:
                return
            time.sleep(every)

    def wait(self):
        """Waits until it is over; returns its summary. A run that did not finish is an error."""
        for _ in self.follow():
            pass
        info = self.info()
        if info["status"] != "finished":
            raise LabError(0, f"run {self.id} is {info['status']}: {info['message']}")
        return info["summary"]

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
        with self.lab.open("POST", f"{self._path}/generate", body) as answer:
            for line in answer:
                event = json.loads(line)
                if event["kind"] == "text":
                    yield event["text"]
                elif event["kind"] == "failed":
                    raise LabError(0, event["message"])

    def score(self, pairs, target=""):
        """Class distributions, rewards and, where rules exist, true classes of (prompt, response) pairs."""
        pairs = [{"prompt": prompt, "response": response} for prompt, response in pairs]
        return self.lab.ask("POST", f"{self._path}/score", {"pairs": pairs, "target": target})

    def to_tensorboard(self, folder):
        """Writes its scalars as TensorBoard event files. Needs the package `tensorboard`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        writer = EventFileWriter(os.path.join(folder, self.id))
        for seconds, name, step, value in self.scalars():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=seconds, step=step, summary=summary))
        writer.close()

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


def _token_in(data):
    folder = data or os.environ.get("MOSLIM_LAB_DATA") or "lab-data"
    try:
        with open(os.path.join(folder, "token"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
