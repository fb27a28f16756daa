"""Clients of TF Serving."""

from typing import Any

from tfkfin.serving.client.base import Client, parse_url


def connect(url: str, model: str | None = None, version: int | None = None, label: str | None = None,
            timeout_s: float = 10.0, **retry: Any) -> Client:
    """A client of one model on a TF Serving server.

    Args:
        url: `http://host:8501`, `https://host`, `grpc://host:8500`, or one of these with /v1/models/NAME.
        model: name of the model on the server, if the URL does not contain it.
        version, label: which version answers; without both the newest.
        timeout_s: time limit of a call, its retries included.
        retry: `retries` and `backoff_s` of `tfkfin.serving.client.base.Client`.

    Raises:
        InputError: the URL is not valid, or gRPC is used without the extra `serve`.
    """
    target = parse_url(url, model, version, label)
    if target.scheme == "grpc":
        from tfkfin.serving.client.rpc import GrpcClient

        return GrpcClient(target, timeout_s, **retry)
    from tfkfin.serving.client.rest import RestClient

    return RestClient(target, timeout_s, **retry)
