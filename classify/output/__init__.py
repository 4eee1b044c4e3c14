"""What a person looks at: figures, leaderboards, reports."""
