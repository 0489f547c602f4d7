"""The download stage: brings a job's data set, and the weights that it starts from, to this host."""

from multiprocessing.connection import Connection
from pathlib import Path

from orchestrator import config
from worker import protocol, stage
from worker.data import supply, weights


class _Stopped(Exception):
    """The supervisor wants the download to end; what has come stays on disk."""


def main(assignment: protocol.Assignment, connection: Connection) -> int:
    """Run the stage and return the exit code of its process."""

    def body(link: stage.Link) -> protocol.Ended:
        def report(progress: protocol.Progress) -> None:
            if link.stop_requested.is_set():
                raise _Stopped
            link.send(progress)

        settings = config.load(data_cache=Path(assignment.data_dir))
        try:
            with stage.leaving(link):
                dataset = supply.ensure_data(
                    assignment.spec, expected_hash=assignment.data_hash, settings=settings, report=report
                )
                weights.ensure(assignment.spec, settings=settings, report=report)
        except _Stopped:
            return protocol.Ended(how="stopped")
        link.send(protocol.DataReady(dataset=dataset))
        if dataset.shared:
            detail = f"{dataset.shared} of {dataset.counts['val']} are in the train split too: the accuracy flatters"
            link.send(protocol.Note(kind="validation_seen", detail=detail))
        return protocol.Ended(how="done")

    return stage.run(connection, body)
