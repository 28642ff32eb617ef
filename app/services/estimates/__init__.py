"""What this machine has for models, and how much of it a model would take, before it is loaded or even downloaded."""
