"""Models from the Hugging Face hub: what a download consists of, fetching it, and removing it again."""
