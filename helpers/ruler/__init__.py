"""One ruler: interventions of both papers, and of those who came after, measured alike."""
