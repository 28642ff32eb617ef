"""Who is computed when: the requests that wait, their prompts, the batch, and what it takes to admit one."""
