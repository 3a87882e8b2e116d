# The words of the pictures, and those that findings fill in, in simplified Chinese; en.ftl says what each means.
# What stands in {braces} is filled in.

## Every picture
research-use-only = 仅供研究使用
demonstration-model = 演示模型 - 不得用于临床
demonstration-reference = 演示参考人群 - 不得用于临床
study-of-date = 检查日期 { $date }
unknown-date = 日期不详
issued-at = 签发 { $time }
preliminary-result = 软件初步结果，未经审核
amended-earlier = 已修订，取代此前的报告
amended-report-of = 已修订，取代 { $time } 的报告
amended-images = 后续图像到达
amended-segmentation = 后续分割结果到达
amended-unrecorded = 归档中存有本节点没有记录的既往报告
amended-identity = 患者或申请单标识已更正
made-with-segmentation = 分割 { $name }
made-with-model = 模型 { $name }
made-with-configuration = 配置 { $hash }
more-findings = 另有 { $count } 条，见结构化报告
more-in-report = 其余内容见结构化报告
severity-refusal = 拒绝
severity-caution = 注意
severity-info = 说明

## Values
equivalent-of = { $mineral } 等效
mean-of-levels = { $levels } 平均值
interval = { $low } 至 { $high }
years = 岁
normal = 骨密度正常
low-bone-mass = 骨量减低
osteoporosis = 骨质疏松
osteopenia = 骨量减少
class-normal = 正常（T ≥ −1）
class-osteopenia = 骨量减少（−2.5 < T < −1）
class-osteoporosis = 骨质疏松（T ≤ −2.5）
region-core = 椎体中心松质骨
region-ellipse = 椎体中部椭圆区
grade-phantom = 体模同步扫描
grade-asynchronous = 体模此前扫描（异步校准）
grade-internal = 患者自身组织校准，仅供筛查
probability-of-class = { $positive }（相对于{ $negative }，按 T 值规则）的概率为 { $percent }
method-two-point = 两点法
method-least-squares = 最小二乘法
method-mindways = Mindways 法
method-internal = 自身组织法
method-asynchronous = 异步{ $method }
own-tissues = 自身组织
water = 水
air = 空气
adipose = 脂肪
blood = 血液
muscle = 肌肉

## The answer, and its table
title-answer = 腰椎 QCT：骨密度
category-is = QCT 骨密度分类 = { $category }
category-withheld = QCT 骨密度分类：不予报告
see-findings = 见下列提示
mean-of-two-levels = { $first } 与 { $second } 平均值：{ $bmd } mg/cm³（{ $mineral }）
converted-from = 由 { $mineral } 换算
density-rule = 判定标准：> 120 正常，80 至 120 骨量减低，< 80 骨质疏松
findings-title = 提示与注意事项
bmd = 骨密度
bmd-in = 骨密度，mg/cm³（{ $mineral }）
level = 椎体
level-unknown = 节段未知
interval95 = 95 % 区间
interval95-holds = 95 % 区间：包含噪声与校准误差，不包含骨髓脂肪误差
ellipse-column = 椭圆区 ±（k=1）
volume-column = 椎体体积，cm³
region-column = 区域，mm²
withheld = 不予报告
level-cut-off = 未完整扫描
no-level-measured = 未测得任何腰椎节段
t-score = T 值
z-score = Z 值
not-given = { $name }：不予报告，见提示
score-basis = { $levels }：{ $bmd }；参考值 { $mean } ± { $sd } mg/cm³ { $mineral }
reference-named = 参考人群：{ $name }（{ $population }）；不等同于 DXA，WHO 分类不适用
study-rule = 研究规则（Xie 2022）
study-rule-is = 研究规则（Xie 2022）：{ $study_class }
study-rule-caveat = 为研究分类，不是诊断
model-results = 影像组学评分与列线图
rad-score-is = 影像组学评分 { $value }
nomogram-is = 列线图 { $points } 分：{ $probability }
nomogram-missing = 缺少数据：未计算列线图
calibration-line = 校准：{ $facts }
calibration-of-slices = 各切片以自身体模棒校准：{ $facts }
rods-read = 体模棒：{ $read }
tissues-read = 组织：{ $read }
tissues-read-at = 组织（{ $energy } keV）：{ $read }
technique-line = 扫描参数：{ $facts }
kv-not-stated = 管电压未注明
slice-thickness = 层厚 { $mm } mm
slice-distance = 层间距 { $mm } mm
slices-alone = 单层扫描
kernel-named = 重建核 { $name }
contrast-agent = 对比剂：{ $agent }
contrast-left-open = 对比剂：不明

## The refusal
title-refusal = 未测量：不报告骨密度
also-noted = 其他提示

## The nomogram
title-nomogram = 列线图
this-patient = 本患者
points-column = 得分
points-axis = 分值
total-points-axis = 总分
probability-axis = 概率
rad-score-axis = 影像组学评分
age-axis = 年龄
alp-axis = 碱性磷酸酶
alkaline-phosphatase-axis = 碱性磷酸酶
homocysteine-axis = 同型半胱氨酸
taken-on = 采样 { $date }
date-not-stated = 日期未注明
total-points-are = 总分 { $points }：{ $probability }
measured-t-score = 实测 T 值 { $value }
classes-of-model = 类别按模型 { $name } 的训练定义；以实测值为准
rad-score-alone = 仅影像组学评分：{ $value }

## The measured regions
title-overlay = 测量区域
plane-sagittal = 矢状位
plane-axial = 横断位：{ $level }
middle-of-volume = 图像中部
legend-body = 轮廓：椎体
legend-region = 填充：{ $region }（骨密度测量区）
legend-rods = 圆圈：体模棒
legend-second-region = 虚线：{ $region }

## Single slices
title-slices = 测量切片：椎体节段未知
slice-level-unknown = { $slice }：节段未知
slice-bmd-withheld = 骨密度不予报告
slice-bmd = 骨密度 { $value } mg/cm³ { $mineral }
slice-technique = 层厚 { $mm } mm，倾斜 { $degrees }°
legend-slice-body = 轮廓：识别的椎体
legend-slice-region = 填充：骨密度测量区
legend-slice-rods = 圆圈：所读体模棒，mg/cm³ { $mineral }
no-rods = 无体模棒

## The calibration
title-calibration = 校准
rods-and-line = 体模棒与校准直线
across-density = 横轴：标称密度，mg/cm³ { $mineral }
up-hu = 纵轴：HU
up-hu-less-water = 纵轴：HU 减去棒内水的 HU
distance-from-line = 与直线的偏差，HU
bars-are-errors = 误差线：各均值的标准误
two-rods-on-line = 两根体模棒总在其直线上
rods-axial = 所读体模棒（横断位）
rods-elsewhere = 本图像中无体模棒。体模于本扫描仪上扫描（{ $date }）。
earlier = 此前
rod-column = 体模棒
distance-column = 偏差
not-in-fit = 未参与拟合
rods-not-in-fit = 未参与拟合：{ $rods }
fact-method = 方法：{ $name }
fact-phantom = 体模：{ $name }
fact-grade = 等级：{ $grade }
fact-largest-distance = 最大偏差 { $hu } HU

## Lists
list = { $first }、{ $rest }
clauses = { $first }；{ $rest }
together = { $first }和{ $rest }

## Shapes of a deformed vertebral body
shape-wedge = 楔形
shape-biconcave = 双凹形
shape-crush = 压缩形
the-study = 本检查
slice-numbered = 切片 { $number }
body-numbered = 腰椎椎体 { $number }/{ $count }
body-briefly = 椎体 { $number }/{ $count }

## The laboratory's file
line-cells = 第 { $line } 行有 { $cells } 个单元格，而列数为 { $columns }
line-beyond-columns = 第 { $line } 行在最后一个命名列之后仍有内容
line-quotation = 第 { $line } 行的引号不成对
first-line-quotation = 首行的引号不成对
row-not-used = 该行已忽略
line-date = 第 { $line } 行：日期格式不是 YYYY-MM-DD
line-number = 第 { $line } 行：{ $name } 不是数字
columns-missing = 文件缺少以下列：{ $names }
file-unreadable = 文件无法读取（{ $error }）
column-twice = 有一列重名
separator-wrong = 列以 { $sign } 而非逗号分隔
study-without-date-laboratory = 检查没有日期，无法匹配检验值

## What may be absent from a report
output-bmd = 骨密度
output-t-score = T 值
output-z-score = Z 值
output-density-category = 骨密度分类
output-study-class = 研究分类
output-features = 影像组学特征
output-rad-score = 影像组学评分
output-nomogram = 列线图
label-homocysteine = 同型半胱氨酸

## Categories and patients
taken-postmenopausal = 绝经后（50 岁及以上）
taken-premenopausal = 绝经前（不满 50 岁）

## Calibration and scanner
calibration-phantom = 体模
calibration-asynchronous = 异步校准
calibration-internal = 患者自身组织校准
not-stated = 未注明
tube-voltage = 管电压
region-of-interest = 感兴趣区
slope = 斜率
signal-above = 高于控制限
signal-below = 低于控制限
signal-upwards = 向上偏移（CUSUM）
signal-downwards = 向下偏移（CUSUM）

## Why a series cannot be measured
no-slices = 没有图像
single-slice = 仅有一层
duplicate-positions = 层面位置重复
several-passes = 同一序列含多次扫描
slice-gap = 缺少层面
spacing-varies = 层间距不一致
orientation-varies = 层面方向不一致
size-varies = 矩阵或像素间距不一致
gantry-tilt = 机架倾斜
off-line = 层面相互错位
geometry-missing = 缺少几何信息
rescale-missing = 缺少 HU 换算参数
technique-varies = 各层扫描技术不一致
energy-unsuited = 体模棒、斜率和椎体的限值不适用于该图像的能量
material-image = 图像去除了某种物质或仅显示某种物质
not-greyscale = 不是单帧灰度图像
undecodable = 像素数据无法解码
damaged = 图像头信息损坏
too-large = 超出本节点的限制
parts-overlap = { $count } 个部分相互重叠，且均不完整；区分依据：{ $attributes }
passes-woven = 层间距依次重复为 { $steps } mm，符合多次扫描交织
energies-suited = { $energy }；限值适用于 { $low } 至 { $high } keV
too-many-images = { $images } 幅图像，超过 limits.slices = { $most }
matrix-too-large = { $rows } x { $columns } 像素，超过 limits.matrix = { $most }
tilt-contradicted = 头信息标注 { $stated } 度，图像显示 { $shown } 度
slices-sheared = 层面逐层错切 { $degrees } 度
different-images-at = 同一位置有不同图像：{ $places }
places = { $depths } mm
places-and-more = { $depths } mm 及另外 { $more } 处
image-missing-after = 层间距 { $step } mm，其后缺少层面：{ $places }
spacing-uneven = { $least } 至 { $most } mm，不均匀处：{ $places }
beside-line = 偏离首末层连线达 { $distance } mm
orientation-odd = 方向不是一对相互垂直的单位向量
pixel-spacing-odd = 像素间距不是正数
rows-or-columns = 行数或列数
decoded-otherwise = 解码结果为 { $shape }
frames-not-described = 多帧 CT 未描述各帧
made-here = 由本节点生成
not-original = 不是原始采集图像（ImageType）
localizer = 定位像
reformatted = 不是采集所得层面（容积属性）
no-orientation = 没有方向信息
not-axial = 不是轴位
reason-of-some = { $reason }（{ $images } 幅图像中的 { $count } 幅）
only-few-slices = 仅有 { $count } 层
covers-little = 仅覆盖 { $length } mm
stack-in-parts = 同一组连续层面被拆分为 { $count } 个序列
no-ct-image = 没有 CT 图像
reason-with-detail = { $reason }：{ $detail }

## Passes of one series
temporal-position = 时相位置
cardiac-phase = 心动周期时相
contrast-medium = 对比剂
acquisition-number = 采集编号
acquisition-time = 采集时间
irradiation-event = 照射事件
image-number = 图像编号
first-complete = 首次完整扫描
first-complete-native = 首次无对比剂的完整扫描
displaced-by = 错位 { $distance } mm
nearer-by = 与一侧相邻图像更相似（相差 { $share }）

## Why another series is measured
not-chosen-no-phantom = 视野内没有体模，而所选序列有
not-chosen-phantom-unusable = 体模不可用，而所选序列的体模可用
not-chosen-contrast-given = 使用了对比剂，而所选序列没有
not-chosen-contrast-doubtful = 是否使用对比剂不明，而所选序列明确
not-chosen-spectrum = 不是常规能谱，而所选序列是
not-chosen-coverage = 覆盖范围小于所选序列
not-chosen-kernel = 卷积核比所选序列更锐利
not-chosen-thickness = 层厚大于所选序列
not-chosen-acquired-later = 采集时间晚于所选序列
not-chosen-series-number = 序列号大于所选序列
not-chosen-same = 与所选序列技术相同
not-chosen-single-slices = 容积扫描之外的单独层面
not-chosen-repetition = 与所选层面重复
advantage-no-contrast = 无对比剂
advantage-no-doubt = 对比剂情况明确
advantage-spectrum = 常规能谱
advantage-coverage = 更多的腰椎
advantage-kernel = 更柔和的卷积核
advantage-thickness = 更薄的层面

## Contrast medium that a header leaves open
vessels-unread = 大血管无法测量
vessels-read = 大血管 CT 值为 { $hu } HU
contrast-documented = 已注明使用对比剂

## A segmentation that came along
seg-several = 有多个分割相符
seg-other-series = 绘制于另一序列
seg-frame-of-reference = 参考坐标系与序列不同
seg-own = 由本节点生成
seg-no-segmentation = 不是 DICOM 分割对象
seg-no-level = 没有编码或配置为椎体的分割段
seg-overlap = 不同椎体的分割段重叠
seg-geometry = 各帧不在同一规则网格上
seg-damaged = 无法解码
seg-voxels = { $count } 个体素
seg-orientation = 方向或像素间距不一致
seg-shifted = 各帧相互错位
seg-uneven = 各帧间距不均匀

## A mask's numbers and names
mask-empty = 分割为空
mask-unknown-levels = 未知的节段：{ $names }
mask-only-value = 其唯一的值为 { $value }
mask-value-ambiguous = 其唯一的值 { $value } 在不同约定中指不同椎体
mask-name-contradicts = 文件名为 { $named }，而值 { $value } 代表 { $level }
mask-no-vertebra = 值 { $values } 在此约定中均不代表椎体
mask-value-no-vertebra = 唯一的值 { $value } 不代表任何腰椎
mask-first-version = 值 { $values } 按 TotalSegmentator 第一版编号
mask-convention-unknown = 无法判断值 { $values } 是 TotalSegmentator 还是 VerSe 的编号
mask-grid = 网格不一致（{ $what }）：{ $left } 与 { $right }
canal-missing = 勾画的是完整椎骨，但未找到界定其椎体的椎管
body-inseparable = { $level }：无法将椎体与后部附件区分

## Levels
level-missing = 缺少 { $level }
level-not-below = { $lower } 不在 { $upper } 下方
levels-apart = { $upper } 与 { $lower } 相距 { $distance } mm
levels-apart-along = { $upper } 与 { $lower } 沿脊柱仅相距 { $distance } mm
spacing-changes = 间距在 { $level } 处由 { $before } mm 变为 { $after } mm
volumes-differ = { $upper } 体积 { $more } cm³，{ $lower } 体积 { $less } cm³
level-holds = { $level } 体积 { $volume } cm³
level-high = { $level } 高 { $height } mm
bodies-shrink = 椎体自上而下变小，每节为上一节的 { $share }
level-in-pieces = { $level } 分为两块
gap-between = { $upper } 与 { $lower } 之间相隔 { $gap } mm
gap-to-sacrum = L5 与骶骨之间相隔 { $gap } mm
sacrum-follows = 骶骨紧接在 { $level } 之下
sacrum-not-below = 骶骨不在 L5 下方
mask-names-l6 = 分割中有 L6
counted-otherwise = 由{ $anchors }计数，{ $level } 应为 { $other }
vertebrae-between = 骶骨与末肋之间有 { $count } 节椎体
sixth-body = 骶骨上方有第六节无肋骨、无侧翼的完整椎体
no-ribs-as-counted = 按计数为 { $level }，但无肋骨
stated-otherwise = 按计数为 { $level }，而人工指定为 { $stated }
ribs-as-counted = 按计数为 { $level }，但有肋骨
sacrum = 骶骨
last-rib = 末肋
ellipse-in-little-bone = 椎体中部椭圆区仅 { $volume } cm³ 位于松质骨内

## Calibration by the patient's own tissues
tissue-too-little = 找到的{ $tissues }过少
blood-enhanced = 血液 CT 值为 { $hu } HU，似有对比剂
no-energies = 没有 { $kvp } kV 的有效能量数据
energy-implausible = 组织 CT 值相当于 { $kev } keV，而 { $kvp } kV 应为 { $lowest } 至 { $highest } keV
hu-off = HU 将偏移 { $offset } HU，并相差 { $percent } %

## Calibration by an earlier scan of a phantom
history-missing = 只有运行中的节点才保存既往扫描
single-slices-not-used = 单独层面的读数不用于其他检查
no-passed-reading = 没有通过全部检查且扫描技术已知的读数
serial-not-stated = 未注明扫描仪序列号
kvp-not-stated = 未注明管电压
kernel-not-stated = 未注明卷积核
study-without-date = 检查没有日期
no-reading = 扫描仪 { $scanner } 上没有体模读数
no-earlier-reading = 检查之前扫描仪 { $scanner } 上没有体模读数
nearest-differs = 最接近的读数（{ $date }）不同：{ $differences }
differs-kvp = 管电压 { $kvp } kV
differs-kernel = 卷积核 { $kernel }
differs-phantom = 体模 { $phantom }
phantom-described-otherwise = 其体模的描述已更改
technique-not-kept = 其扫描技术未保存
expired-on = 已于 { $date } 过期
phantom-failed = 其体模未通过全部检查
phantom-failed-checks = 其体模未通过全部检查（{ $codes }）
quantity-not-stated = 未注明{ $quantity }
quantity-is = { $quantity } { $value }
quantity-off = { $quantity }相差 { $distance } mm
table-height = 床高
field-of-view = 视野
single-slices = 单独层面
a-volume = 容积扫描
failed-check-since = { $date }，不早于拟用读数，该扫描仪上有体模未通过全部检查（{ $codes }）
scanner-drifts = 扫描仪漂移：{ $kvp } kV 下体模的{ $quantity }{ $signal }，{ $date }
scanner-drifts-still = { $drift }，此后一直未恢复受控

## A reference or a model that does not fit
equivalent-differs = 其以 { $theirs } 给出，体模测量的是 { $own }
grade-differs = 其要求的校准：{ $grades }；本检查：{ $grade }
sex-differs = 其适用性别为 { $sex }
range = { $low } 至 { $high }
kvp-outside = { $kvp } kV 超出 { $limits } kV
slices-outside = 层间距 { $spacing } mm 超出 { $limits } mm
pixels-outside = 像素 { $size } mm 超出 { $limits } mm
rad-score-outside = 影像组学评分 { $score } 超出 { $limits }
input-outside = { $name } { $value } 超出 { $limits }
region-differs = 其感兴趣区为{ $theirs }，本检查为{ $own }
region-is-core = 椎体中心松质骨
region-is-ellipse = 椎体中部椭圆区
levels-needed = 其需要 { $levels }；未测量：{ $unmeasured }
levels-taken-as = 椎体节段（按 { $levels } 计）
energy-differs = 能量类型为{ $own }，要求为{ $required }
filter-differs = 能谱滤过为{ $own }，要求为{ $required }
slices-stand-alone = 其层面彼此独立
pixel-spacing-not-stated = 未注明像素间距
densities-differ = 骨密度以 { $own } 表示，模型的标签基于 { $theirs }
features-otherwise = 其特征以其他设置计算
model-changed = 测量期间启用了另一模型；请重试本检查
region-slices = 感兴趣区内 { $slices } 层，需要 { $needed } 层
region-not-finite = 感兴趣区内有体素没有有限的 HU 值
feature-undefined = { $names } 没有有限值
mean-density-of = { $first } 与 { $second } 的平均骨密度
interval-with-unit = { $low } 至 { $high } { $unit }
many = 许多

## Spectra
energy-conventional = 常规
energy-virtual = 虚拟单能 { $energy } keV
energy-virtual-described-at = 虚拟单能 { $energy } keV（据序列描述）
energy-virtual-described = 虚拟单能（据序列描述）
energy-photon-counting = 光子计数
energy-multi = 多能谱 { $words }
filter-none = 无
filter-tin = 锡
filter-tin-described = 锡（据序列描述）
filter-silver = 银
filter-gold = 金
filter-copper = 铜
filter-molybdenum = 钼
filter-rhodium = 铑
filter-niobium = 铌
filter-tungsten = 钨
filter-europium = 铕
filter-lead = 铅

## An earlier study
same-day = 两次检查在同一天；先后顺序不明
condition-not-stated = 两次检查均未注明{ $condition }
condition-differs = 其{ $condition }为 { $theirs }，本检查为 { $own }
condition-scanner = 扫描仪
condition-equivalent = 矿物等效物
condition-phantom = 体模
condition-method = 校准方法
condition-rules = 分割、感兴趣区与校准的规则集
condition-engine = 分割引擎
condition-filter = 能谱滤过
condition-energy = 能量类型
condition-kernel = 卷积核
condition-reconstruction = 重建方式
condition-phantom-description = 体模描述
condition-model = 扫描仪型号
levels-not-confirmed = 并非两次检查的椎体节段均已确认
contrast-in-either = 使用过或怀疑使用过对比剂
no-common-level = 没有两次均测量的节段
no-level = 无节段
