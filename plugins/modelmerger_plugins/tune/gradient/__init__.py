"""Losses of a merge as a function of its coefficients, and their gradient, without a merged model in memory.

A linear strategy makes each tensor W = s·θ₀ + Σ cᵢ(θᵢ − θ₀). So ∂L/∂cᵢ = ⟨∂L/∂W, θᵢ − θ₀⟩, and one forward and one
backward pass give the derivatives for all coefficients of all tensors, whatever their number. The tensors of the models
are streamed from their checkpoints, a layer at a time, forward and again backward.
"""
