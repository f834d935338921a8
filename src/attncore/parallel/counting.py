"""How many bytes a rank has sent, as the kernel counts them."""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys

import torch.distributed as dist

from attncore.parallel.collectives import check_rank

NOT_SENT, SENT, SENT_AGAIN = (144, "I"), (200, "Q"), (208, "Q")
"""Where struct tcp_info of linux/tcp.h has tcpi_notsent_bytes, _bytes_sent, _bytes_retrans."""

LENGTH = 216
"""Of what it must have to hold all three, which it does from Linux 4.19 on."""


def bytes_sent() -> int | None:
    r"""Count the bytes that this rank has sent so far, or None where nobody counts them.

    .. math:: \sum_{\mathrm{sockets}} \mathrm{sent} - \mathrm{sent\ again} + \mathrm{waiting}

    The kernel counts, for each TCP connection that the process holds open. Gloo adds 48 bytes
    to each message. Take the difference of two calls: the first messages between two ranks
    also cost what it takes to get to know each other.

    Returns
    -------
    int or None
        None on systems other than Linux, and on GPUs: NCCL goes past TCP.

    Raises
    ------
    RuntimeError
        If this process is no rank of :func:`run`.

    References
    ----------
    The Linux manual, tcp(7), TCP_INFO; the header linux/tcp.h, struct tcp_info.

    Examples
    --------
    >>> from attncore.parallel import bytes_sent, run
    >>> def nothing():
    ...     return bytes_sent()
    >>> run(nothing, ranks=1)[0] in (0, None)
    True
    """
    check_rank("bytes_sent")
    if sys.platform != "linux" or dist.get_backend() != "gloo":
        return None
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed meanwhile, or no TCP
            continue
        if len(info) < LENGTH:
            return None
        not_sent, sent, again = (
            struct.unpack_from(f"={kind}", info, at)[0] for at, kind in (NOT_SENT, SENT, SENT_AGAIN)
        )
        total += sent - again + not_sent
    return total
