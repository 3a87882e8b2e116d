# What R answers, so that the tests need no R:  Rscript tests/unit/parity_with_r/make.R
# Packages: glmnet, pROC, rms (Debian: r-cran-glmnet, r-cran-proc, r-cran-rms). Writes cohort.csv, folds and
# expected.csv (name, value) beside this file. No patient: the cohort is drawn by R's own generator.
suppressMessages({library(glmnet); library(pROC); library(rms)})
folder <- dirname(normalizePath(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))))
set.seed(20221)
n <- 160; p <- 12
common <- rnorm(n)
x <- sapply(1:p, function(k) 3 * k + k * (0.6 * common + rnorm(n)))
colnames(x) <- sprintf("f%02d", 1:p)
age <- round(rnorm(n, 65, 9)); alp <- round(rlnorm(n, 4.4, 0.3), 1); hcy <- round(rlnorm(n, 2.6, 0.25), 2)
effect <- 0.9 * scale(x[, 1]) - 0.8 * scale(x[, 4]) + 0.5 * scale(x[, 9]) + 0.5 * scale(age) + 0.3
y <- as.integer(runif(n) < plogis(effect))
fold <- sample(rep(1:8, length.out = n))
cohort <- data.frame(round(x, 6), age, alp, hcy, y, fold)
write.csv(cohort, file.path(folder, "cohort.csv"), row.names = FALSE)
cohort <- read.csv(file.path(folder, "cohort.csv")); x <- as.matrix(cohort[, 1:p]); y <- cohort$y

told <- list()
tell <- function(name, values) for (k in seq_along(values))
  told[[length(told) + 1]] <<- data.frame(name = sprintf("%s.%d", name, k), value = as.numeric(values[k]))

# LASSO: equal penalties, equal folds
lambda <- glmnet(x, y, family = "binomial")$lambda
lambda <- max(lambda) * 1e-4^(seq(0, 1, length.out = 100)) # glmnet stops early; the whole path is wanted
tight <- list(thresh = 1e-14, maxit = 1e7)
fit <- glmnet(x, y, family = "binomial", lambda = lambda, thresh = 1e-14, maxit = 1e7)
for (at in c(10, 30, 60, 100)) tell(sprintf("lasso.%d", at), as.numeric(coef(fit, s = lambda[at], exact = FALSE)))
cv <- cv.glmnet(x, y, family = "binomial", lambda = lambda, foldid = cohort$fold, thresh = 1e-14, maxit = 1e7)
tell("lasso.lambda", lambda)
tell("lasso.cvm", cv$cvm); tell("lasso.cvsd", cv$cvsd)
tell("lasso.min", cv$lambda.min); tell("lasso.1se", cv$lambda.1se)

# Logistic regression
model <- glm(y ~ f01 + age + alp + hcy, data = cohort, family = binomial, control = glm.control(epsilon = 1e-14))
tell("logistic.coef", coef(model)); tell("logistic.se", sqrt(diag(vcov(model))))
tell("logistic.p", summary(model)$coefficients[, 4]); tell("logistic.deviance", deviance(model))
tell("logistic.or.lower", exp(confint.default(model))[, 1]); tell("logistic.or.upper", exp(confint.default(model))[, 2])
risk <- fitted(model)

# DeLong: one score with ties
first <- roc(y, risk, direction = "<", quiet = TRUE); second <- roc(y, cohort$age, direction = "<", quiet = TRUE)
tell("auc.first", c(auc(first), sqrt(var(first)), ci(first)))
tell("auc.second", c(auc(second), sqrt(var(second)), ci(second)))
test <- roc.test(first, second, method = "delong", paired = TRUE)
tell("auc.test", c(test$statistic, test$p.value))

# Hosmer and Lemeshow over tenths of risk
group <- cut(risk, quantile(risk, seq(0, 1, 0.1)), include.lowest = TRUE)
observed <- tapply(y, group, sum); expected <- tapply(risk, group, sum); size <- tapply(y, group, length)
statistic <- sum((observed - expected)^2 / (expected * (1 - expected / size)))
tell("hl", c(statistic, pchisq(statistic, 8, lower.tail = FALSE), pchisq(statistic, 10, lower.tail = FALSE)))
tell("brier", mean((risk - y)^2))

# Exact interval, tests between groups
for (case in list(c(43, 47), c(0, 12), c(9, 9))) tell(sprintf("exact.%d.%d", case[1], case[2]), binom.test(case[1], case[2])$conf.int)
tell("welch", c(t.test(f02 ~ y, data = cohort)$statistic, t.test(f02 ~ y, data = cohort)$p.value))
tell("wilcoxon", wilcox.test(alp ~ y, data = cohort, exact = FALSE, correct = TRUE)$p.value)
tell("chisq", unlist(chisq.test(table(cohort$y, cohort$age > 65), correct = FALSE)[c("statistic", "p.value")]))

# Nomogram: points of both ends of each axis, of one patient, and total points against the linear predictor
dd <- datadist(cohort); options(datadist = "dd")
fit <- lrm(y ~ f01 + age + alp + hcy, data = cohort)
drawn <- nomogram(fit, f01 = c(-1, 8), age = c(50, 90), alp = c(40, 140), hcy = c(5, 25), lp = TRUE, maxscale = 100)
tell("nomogram.coef", coef(fit))
for (name in c("f01", "age", "alp", "hcy")) tell(paste0("nomogram.", name), drawn[[name]]$points)
tell("nomogram.total", drawn$total.points$x); tell("nomogram.lp.points", drawn$lp$x); tell("nomogram.lp", drawn$lp$x.real)

versions <- sapply(c("glmnet", "pROC", "rms"), function(name) as.character(packageVersion(name)))
all <- do.call(rbind, told)
lines <- c(sprintf("# R %s, %s", getRversion(), paste(names(versions), versions, collapse = ", ")), "name,value",
           sprintf("%s,%.15g", all$name, all$value))
writeLines(lines, file.path(folder, "expected.csv"))
