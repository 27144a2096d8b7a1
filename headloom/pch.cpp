// Carries the precompiled torch header that every other target reuses.
