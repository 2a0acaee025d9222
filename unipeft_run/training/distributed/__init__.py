"""One run on several processes: ranks, the process environment, DDP and FSDP2."""
