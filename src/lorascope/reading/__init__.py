"""What an adapter learned, in words: what it says, beside what null adapters say."""
