"""What connects the processes of a pipeline: on one host sockets and shared memory, between hosts gloo, GPUs NCCL."""
