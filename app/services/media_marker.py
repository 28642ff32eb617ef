"""What stands for an image in the text of a prompt that a client writes itself, as llama-server has it."""

import secrets

# /props says it; nobody writes it by chance.
MEDIA_MARKER = f"<__media_{secrets.token_hex(16)}__>"
